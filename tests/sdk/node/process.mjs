// Runs the real binary for the suites in JavaScript (tests/sdk/node, tests/browser). It prints its address when it is
// ready, so no port is guessed; waiting is polling with a deadline.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const START_MS = 20_000;

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
export class Process {
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
