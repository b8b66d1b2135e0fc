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

<<<<<<< HEAD
/** Body of a Messages call. */
export const message = (text, more = {}) => ({
  model: 'claude-haiku-5-5',
  max_tokens: 256,
  messages: [{ role: 'user', content: text }],
  ...more,
});

/** Calls `check` until it gives something, at most for `ms`. */
export async function until(what, check, ms = 30_000) {
  for (const deadline = Date.now() + ms; ; await pause(50)) {
    const found = await check();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
  }
}

function binary() {
  const target = process.env.CARGO_TARGET_DIR || path.join(ROOT, 'target');
  const file = process.env.NIGHTBUS_BIN || path.join(target, 'release', 'nightbus');
  if (!existsSync(file)) throw new Error(`${file} does not exist: run \`cargo build --release\`, or set NIGHTBUS_BIN`);
  return file;
}

/** The caller's environment without what would change a run. */
function cleanEnvironment() {
  const changes = /^(NIGHTBUS_|OPENAI_|ANTHROPIC_|RUST_LOG)|_PROXY$/i;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !changes.test(name)));
}

/** One run of the binary. */
class Process {
  #lines = [];
  #errors = '';

  constructor(args, environment = {}) {
    this.child = spawn(binary(), args, {
      env: { ...cleanEnvironment(), ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.ended = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)));
    createInterface({ input: this.child.stdout }).on('line', (line) => this.#lines.push(line));
    this.child.stderr.on('data', (data) => (this.#errors = (this.#errors + data).slice(-4000)));
  }

  /** The URL in the line `WHO listening on URL`. */
  async address(who) {
    const pattern = new RegExp(`^${who} listening on (http://\\S+?)/?$`);
    const look = () => {
      if (this.child.exitCode !== null) throw new Error(`${who}: ended with ${this.child.exitCode}: ${this.#errors}`);
      return this.#lines.map((line) => pattern.exec(line)?.[1]).find(Boolean);
    };
    return until(`'${who} listening on …' in ${JSON.stringify(this.#lines)}; log: ${this.#errors}`, look, START_MS);
  }

  async kill() {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  /** SIGTERM; gives the exit code. */
  async terminate() {
    this.child.kill('SIGTERM');
    return this.ended;
  }
}

=======
>>>>>>> dash
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
