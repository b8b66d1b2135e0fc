// The admin API: one function per way to call it, and the token, which is kept for this tab alone.

const KEY = 'nightbus-admin-token';

let token = null;
try {
  token = sessionStorage.getItem(KEY);
} catch {
  // Without storage the token lives as long as the page.
}

/** An answer that is an error; `status` 0: there was no answer. */
export class ApiError extends Error {
  constructor(status, code, message, body = {}) {
    super(message);
    Object.assign(this, { status, code, body });
  }
}

export const hasToken = () => token !== null;

/** Sets the token, or forgets it (null). */
export function setToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // See above.
  }
}

/** The response of `path`, which is good; anything else is thrown as an [`ApiError`]. */
export async function request(path, { method = 'GET', signal } = {}) {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  let response;
  try {
    response = await fetch(path, { method, headers, signal, cache: 'no-store', credentials: 'omit' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, 'unreachable', 'nightbus does not answer. Is the process running?');
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const { code = String(response.status), message = `The answer was ${response.status}.` } = body.error ?? {};
  throw new ApiError(response.status, code, message, body);
}

/** A JSON answer. */
export async function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return (await request(query.size ? `${path}?${query}` : path)).json();
}

/** Does something; gives what the answer says about it. */
export async function act(method, path) {
  return (await request(path, { method })).json();
}

/** Why the process takes no deferred calls; nothing when it does. */
export async function unready() {
  try {
    await request('/readyz');
    return [];
  } catch (error) {
    if (error.status !== 503) throw error;
    return error.body.reasons ?? [];
  }
}

/** The samples of /metrics as `{name, labels, value}`. */
export async function metrics() {
  const text = await (await request('/metrics')).text();
  const samples = [];
  for (const line of text.split('\n')) {
    const match = /^([a-z_]+)(?:\{(.*)\})? ([0-9.eE+-]+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? '').matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    samples.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return samples;
}
