// Starts the page: which view is shown, when it is read again, and what the header says. A view is a module with
// `open(app, rest, parameters)`, which gives `{title, element, refresh(), close?()}`. Data flows one way: the API is
// read into `app.now`, and views draw what stands there.
import { ApiError, get, hasToken, metrics, setToken, unready } from './api.js';
import { askToken, toast } from './dialog.js';
import { h, say, show } from './dom.js';
import { clock, duration, now } from './format.js';
import { follow } from './live.js';
import { Watch } from './problems.js';
import * as batch from './views/batch.js';
import * as batches from './views/batches.js';
import * as faults from './views/faults.js';
import * as flights from './views/flights.js';
import * as lanes from './views/lanes.js';
import * as overview from './views/overview.js';
import * as request from './views/request.js';
import * as requests from './views/requests.js';
import * as savings from './views/savings.js';

const QUIET_MS = 10_000;
const BUSY_MS = 1_000;
const METRICS_MS = 10_000;
const KEPT_SAMPLES = 1_200;

const byId = (id) => document.getElementById(id);
const watch = new Watch();

/** What all views share. */
const app = {
  status: null,
  faults: [],
  reasons: [],
  flights: null,
  samples: [],
  /** Reads again soon, after something was done. */
  refresh() {
    metricsAt = -Infinity;
    schedule(0);
  },
};

let view = null;
let streaming = false;
let readAt = null;
let changed = false;

// === Reading

let timer;
let reading = false;
let pause = BUSY_MS;

function schedule(ms) {
  clearTimeout(timer);
  timer = setTimeout(read, ms);
}

async function read() {
  if (reading) changed = true;
  if (reading || document.hidden) return;
  reading = true;
  changed = false;
  const began = performance.now();
  try {
    await readShared();
    await draw();
    readAt = now();
    heard();
  } catch (error) {
    failed(error);
  }
  // A slow answer means a busy process: it is asked less often then.
  pause = Math.max(BUSY_MS, 4 * (performance.now() - began));
  reading = false;
  schedule(changed ? pause : QUIET_MS);
}

/** Has the view drawn; one that was left meanwhile keeps what it had. */
async function draw() {
  const drawn = view;
  await drawn.refresh();
  drawn.element.removeAttribute('aria-busy');
}

let metricsAt = -Infinity;
async function readShared() {
  if (performance.now() - metricsAt > METRICS_MS) {
    metricsAt = performance.now();
    const [samples, reasons] = await Promise.all([metrics(), unready(), app.flights === null ? null : readFlights()]);
    app.faults = watch.take(samples);
    app.reasons = reasons;
  }
  app.status = await get('/api/status');
  const { queue, requests: states } = app.status;
  app.samples.push({ at: now(), queued: queue.requests, submitted: states.submitted ?? 0 });
  app.samples.splice(0, app.samples.length - KEPT_SAMPLES);
  const { version, uptime_seconds: uptime, deferral, store } = app.status;
  say(byId('about'), `nightbus ${version}, up ${duration(uptime)}, deferral ${deferral}, store ${store.kind}`);
}

/** Test flights show only where this version has them. */
async function readFlights() {
  try {
    app.flights = (await get('/api/flights')).data ?? [];
  } catch (error) {
    if (error.status === 0 || error.status === 401) throw error;
    app.flights = null;
  }
  const waiting = (app.flights ?? []).filter(flights.isWaiting).length;
  show(byId('nav-flights'), app.flights !== null);
  show(byId('flights-waiting'), waiting > 0);
  say(byId('flights-waiting'), String(waiting), h('span', { class: 'sr' }, ' to decide'));
}

function failed(error) {
  if (error.status === 401) return denied();
  if (error.status === 0) return lost();
  if (error instanceof ApiError) return toast(error.message);
  throw error;
}

// === The connection

const stream = follow({
  state(state) {
    streaming = state === 'live';
    if (!streaming) return lost();
    heard();
    metricsAt = -Infinity;
    if (app.flights === null) readFlights().catch(failed);
    schedule(0);
  },
  change() {
    // Many changes in a moment are read once.
    if (!changed) {
      changed = true;
      if (!reading) schedule(pause);
    }
  },
  denied,
});

function heard() {
  if (!streaming) return;
  show(byId('lost'), false);
  document.body.classList.remove('stale');
  pulse('live', 'Live');
}

function lost() {
  pulse('lost', 'Disconnected');
  document.body.classList.add('stale');
  const seen = readAt === null ? 'Nothing could be read yet.' : `What is shown here is from ${clock(readAt)}.`;
  const again = h('button', { type: 'button', class: 'button small' }, 'Try now');
  if (byId('lost').hidden || !byId('lost').textContent.includes(seen)) {
    byId('lost').replaceChildren(h('strong', {}, 'Disconnected.'),
      ` ${seen} Is nightbus running? The page tries again by itself. `, again);
    again.addEventListener('click', () => stream.again());
  }
  show(byId('lost'), true);
}

function pulse(state, text) {
  const element = byId('pulse');
  element.dataset.state = state;
  say(element, text);
}

// === The token

function denied() {
  setToken(null);
  show(byId('forget'), false);
  pulse('lost', 'Locked');
  askToken(async (token) => {
    setToken(token);
    try {
      await get('/api/status');
    } catch (error) {
      setToken(null);
      throw error;
    }
    show(byId('forget'), true);
    stream.again();
    schedule(0);
  });
}

byId('forget').addEventListener('click', () => {
  setToken(null);
  location.reload();
});
show(byId('forget'), hasToken());

// === Views

const VIEWS = {
  '': [overview],
  savings: [savings],
  batches: [batches, batch],
  requests: [requests, request],
  lanes: [lanes],
  flights: [flights],
  faults: [faults],
};

function open() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [name, rest] = path.split('/');
  const [list, one] = VIEWS[name] ?? VIEWS[''];
  const parameters = new URLSearchParams(query);
  const same = view?.change && view.name === path;
  if (same) return view.change(parameters).catch(failed);
  view?.close?.();
  const first = view === null;
  view = (rest && one ? one : list).open(app, decodeURIComponent(rest ?? ''), parameters);
  view.name = path;
  document.title = `${view.title} · nightbus`;
  view.element.setAttribute('aria-busy', 'true');
  byId('content').replaceChildren(view.element);
  for (const link of document.querySelectorAll('#nav a')) {
    if (link.hash.replace(/^#\/?/, '') === (VIEWS[name] ? name : '')) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (!first) {
    // A new view is read from its heading on.
    scrollTo(0, 0);
    view.element.querySelector('h1')?.focus();
  }
  if (app.status) draw().then(heard, failed);
}

byId('skip').addEventListener('click', (event) => {
  // The address after # belongs to the views.
  event.preventDefault();
  byId('content').focus();
});
addEventListener('hashchange', open);
document.addEventListener('visibilitychange', () => schedule(0));
open();
