// Starts the real binary, as a simulated provider and as the proxy, for the suites of this folder. Ports are read from
// the line that each prints when it is ready. Nothing waits for a fixed time: `until` polls with a deadline.

import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import { Process, until } from './process.mjs';

export { until };

export const MODEL = 'gpt-6-luna';
export const DEFER = { 'x-nightbus-defer': 'true' };

/** A word that the simulator finds in a request, repeats in its answer, and counts executions by. */
export const marker = () => `probe-${randomUUID().replaceAll('-', '')}`;

/** Body of a chat call. */
export const chat = (text, more = {}) => ({ model: MODEL, messages: [{ role: 'user', content: text }], ...more });

/** Body of a Messages call. */
export const message = (text, more = {}) => ({
  model: 'claude-haiku-5-5',
  max_tokens: 256,
  messages: [{ role: 'user', content: text }],
  ...more,
});

/** A simulator, and the proxy in front of it, on a data directory of its own. */
export class Stand {
  static async start({ batchSeconds = 1, settings = {} } = {}) {
    const stand = new Stand();
    stand.folder = await mkdtemp(path.join(tmpdir(), 'nightbus-sdk-'));
    stand.simulator = new Process(['simulate', '--listen', '127.0.0.1:0', '--batch-seconds', String(batchSeconds)]);
    stand.simulatorUrl = await stand.simulator.address('simulator');
    await stand.serve(settings);
    return stand;
  }

  /** Starts the proxy (again); `settings` are keys such as `BATCHING__IDLE`. */
  async serve(settings = {}) {
    const own = { BATCHING__IDLE: '300ms', BATCHING__POLL: '500ms' };
    const keys = { PROVIDERS__ANTHROPIC__BASE_URL: `${this.simulatorUrl}/v1`, ...own, ...settings };
    const environment = Object.fromEntries(Object.entries(keys).map(([key, value]) => [`NIGHTBUS_${key}`, value]));
    const listen = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
    const rest = ['--upstream', `${this.simulatorUrl}/v1`, '--data-dir', path.join(this.folder, 'data')];
    this.proxy = new Process(['serve', ...listen, ...rest], environment);
    this.url = await this.proxy.address('nightbus');
  }

  async stop() {
    await Promise.all([this.proxy?.kill(), this.simulator?.kill()]);
    await rm(this.folder, { recursive: true, force: true });
  }

  /** A client of the SDK. It does not retry, so that a retry cannot hide an error. */
  client({ path: base = '/v1', defer = false, ...options } = {}) {
    return new OpenAI({
      baseURL: `${this.url}${base}`,
      apiKey: 'sk-suite',
      maxRetries: 0,
      timeout: 60_000,
      defaultHeaders: defer ? DEFER : {},
      ...options,
    });
  }

  /** The same of Anthropic's SDK. */
  anthropic({ path: base = '', defer = false, ...options } = {}) {
    return new Anthropic({
      baseURL: `${this.url}${base}`,
      apiKey: 'sk-suite',
      maxRetries: 0,
      timeout: 60_000,
      defaultHeaders: defer ? DEFER : {},
      ...options,
    });
  }

  /** A request to nightbus's own routes with the same credential. */
  fetch(route, options = {}) {
    const headers = { authorization: 'Bearer sk-suite', ...options.headers };
    return fetch(`${this.url}${route}`, { ...options, headers });
  }

  /** How often a request with the marker `word` was executed. */
  async executions(word) {
    return (await (await fetch(`${this.simulatorUrl}/sim/executions`)).json())[word] ?? 0;
  }

  async batches() {
    const answer = await (await fetch(`${this.simulatorUrl}/sim/batches`)).json();
    return Array.isArray(answer) ? answer : answer.data;
  }
}
