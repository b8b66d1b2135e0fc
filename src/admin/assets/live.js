// The event stream, held open for as long as the page lives. It is read by fetch, because EventSource cannot send the
// admin token. The server gives a sign of life every 15 seconds; a stream that is silent for longer counts as lost.
import { ApiError, request } from './api.js';

const SILENCE_MS = 40_000;
const PAUSES_MS = [500, 1_000, 2_000, 4_000, 8_000];

/**
 * Calls `on.state('live' | 'lost', error)` when the connection changes, `on.change(kind, data)` for each event, and
 * `on.denied()` when the token is missing or wrong (it then waits until `again` is called).
 */
export function follow(on) {
  let failures = 0;
  let wake = () => {};
  const sleep = (ms) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  async function run() {
    for (;;) {
      let lost;
      try {
        await read(on, () => (failures = 0));
        lost = new ApiError(0, 'ended', 'The connection to nightbus has ended.');
      } catch (error) {
        lost = error;
      }
      if (lost.status === 401) {
        on.denied();
        await sleep(2 ** 31 - 1);
      } else {
        on.state('lost', lost);
        await sleep(PAUSES_MS[Math.min(failures, PAUSES_MS.length - 1)]);
        failures += 1;
      }
    }
  }
  run();
  return { again: () => wake() };
}

async function read(on, connected) {
  const control = new AbortController();
  let watch;
  const alive = () => {
    clearTimeout(watch);
    watch = setTimeout(() => control.abort(), SILENCE_MS);
  };
  alive();
  try {
    const response = await request('/api/events', { signal: control.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      if (!rest && value.startsWith(': nightbus')) {
        connected();
        on.state('live');
      }
      const events = (rest + value).split('\n\n');
      rest = events.pop();
      for (const event of events) deliver(event, on);
    }
  } finally {
    clearTimeout(watch);
    control.abort();
  }
}

function deliver(text, on) {
  const kind = /^event: (.*)$/m.exec(text)?.[1];
  const data = /^data: (.*)$/m.exec(text)?.[1];
  if (!kind) return;
  try {
    on.change(kind, JSON.parse(data ?? 'null'));
  } catch {
    // An event that cannot be read still says that something has changed.
    on.change(kind, null);
  }
}
