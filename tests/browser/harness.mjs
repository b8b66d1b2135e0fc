// A real Chromium in front of the real binary and its simulator. Every page is watched: a script error, an error or warning on
// the console, or anything the page's own policy refused fails the test that opened it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { chromium } from 'playwright-core';

import { Process, until as poll } from '../sdk/node/process.mjs';

const MODEL = 'gpt-6-luna';
/** Only failures take this long; a busy machine may come near it. */
const PATIENCE_MS = 60_000;
/** Nothing of the browser's own goes to the network. */
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];
/** Answers that the browser itself reports on the console although the page expects them. */
const EXPECTED = [
  // Asked once: versions without test flights or without history answer so, and the page leaves the part out.
  /status of 404 .*\/api\/flights/,
  /status of 501 .*\/api\/savings/,
];

/** Calls `check` until it gives something. */
export const until = (what, check, ms = PATIENCE_MS) => poll(what, check, ms);

/** A browser with an empty profile, for all tests of a file. */
export class Browser {
  static async start() {
    const browser = new Browser();
    browser.folder = await mkdtemp(path.join(tmpdir(), 'nightbus-browser-'));
    browser.context = await chromium.launchPersistentContext(browser.folder, {
      executablePath: process.env.NIGHTBUS_CHROMIUM || '/usr/bin/chromium',
      args: FLAGS,
      locale: 'en-US',
      viewport: { width: 1280, height: 800 },
    });
    browser.context.setDefaultTimeout(PATIENCE_MS);
    browser.context.setDefaultNavigationTimeout(PATIENCE_MS);
    return browser;
  }

  /** Closes what a failed test left open: a browser has few connections for one host, and each page holds one. */
  async sweep() {
    const [, ...left] = this.context.pages();
    await Promise.all(left.map((page) => page.close()));
  }

  /** A watched page at `url`. `expects`: further console lines that belong to the test. */
  async open(url, { expects = [], viewport, colorScheme = 'light' } = {}) {
    const page = await this.context.newPage();
    const trouble = [];
    const fine = (text) => [...EXPECTED, ...expects].some((pattern) => pattern.test(text));
    page.on('pageerror', (error) => trouble.push(`script: ${error.stack ?? error.message}`));
    page.on('console', (message) => {
      const text = `${message.text()} ${message.location().url ?? ''}`;
      if (['error', 'warning'].includes(message.type()) && !fine(text)) trouble.push(`${message.type()}: ${text}`);
    });
    await page.addInitScript(() => {
      globalThis.refusedByPolicy = [];
      addEventListener('securitypolicyviolation', (event) => globalThis.refusedByPolicy.push(`${event.violatedDirective} ${event.blockedURI}`));
    });
    await page.emulateMedia({ colorScheme });
    if (viewport) await page.setViewportSize(viewport);
    await page.goto(url);
    /** Closes the page; it must have been quiet. */
    page.done = async () => {
      assert.deepEqual(await page.evaluate(() => globalThis.refusedByPolicy), []);
      await page.close();
      assert.deepEqual(trouble, []);
    };
    return page;
  }

  async stop() {
    await this.context?.close();
    if (this.folder) await rm(this.folder, { recursive: true, force: true });
  }
}

/** The proxy with a simulator behind it, on a data directory and ports that stay the same over restarts. */
export class Stand {
  static async start({ batchSeconds = 1, settings = {}, faults = [] } = {}) {
    const stand = new Stand();
    stand.folder = await mkdtemp(path.join(tmpdir(), 'nightbus-dashboard-'));
    stand.adminPort = await freePort();
    stand.settings = settings;
    const more = faults.flatMap((fault) => ['--fault', fault]);
    stand.simulator = new Process(['simulate', '--listen', '127.0.0.1:0', '--batch-seconds', String(batchSeconds), ...more]);
    try {
      stand.simulatorUrl = await stand.simulator.address('simulator');
      await stand.serve();
    } catch (error) {
      // A process left behind would keep the runner waiting for its pipes.
      await stand.stop();
      throw error;
    }
    return stand;
  }

  async serve() {
    const keys = { BATCHING__IDLE: '300ms', BATCHING__POLL: '300ms', ...this.settings };
    const environment = Object.fromEntries(Object.entries(keys).map(([key, value]) => [`NIGHTBUS_${key}`, value]));
    this.proxy = new Process([
      'serve', '--listen', '127.0.0.1:0', '--admin-listen', `127.0.0.1:${this.adminPort}`,
      '--upstream', `${this.simulatorUrl}/v1`, '--data-dir', path.join(this.folder, 'data'),
    ], environment);
    this.url = await this.proxy.address('nightbus');
    this.admin = await this.proxy.address('admin');
  }

  /** Defers a call and leaves; gives the request object. */
  async defer(text, { tag = 'suite', model = MODEL } = {}) {
    const response = await fetch(`${this.url}/v1/chat/completions`, {
      method: 'POST',
      headers: {
        authorization: 'Bearer sk-suite', 'content-type': 'application/json', 'x-nightbus-defer': 'true',
        'x-nightbus-tag': tag, prefer: 'respond-async',
      },
      body: JSON.stringify({ model, messages: [{ role: 'user', content: text }] }),
    });
    assert.equal(response.status, 202, await response.clone().text());
    return response.json();
  }

  /** Defers `number` calls, some at a time. */
  async deferMany(number, options) {
    for (let done = 0; done < number; done += 50) {
      const some = Array.from({ length: Math.min(50, number - done) }, (_, at) => this.defer(`call ${done + at}`, options));
      await Promise.all(some);
    }
  }

  /** What the admin API answers. */
  async api(route, headers = {}) {
    return (await fetch(`${this.admin}${route}`, { headers })).json();
  }

  /** The request once it has ended. */
  async finished(id) {
    return until(`${id} has ended`, async () => {
      const request = await this.api(`/api/requests/${id}`);
      return request.finished_at !== null && request;
    });
  }

  async stop() {
    await Promise.all([this.proxy?.kill(), this.simulator?.kill()]);
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A port that nobody listens on; a page must find the restarted proxy where it was. */
async function freePort() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Waits until `selector` shows `text`. */
export const shows = (page, selector, text, timeout = PATIENCE_MS) =>
  page.locator(selector).filter({ hasText: text }).first().waitFor({ state: 'visible', timeout });
