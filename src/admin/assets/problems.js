// What is wrong right now, in words that say what to do. Counters only grow, so what counts is that they have grown in
// the last minutes: the first reading of a page is where it begins.
import { counted, duration, now } from './format.js';

const RECENT_SECONDS = 180;
/** Uploading a large batch may take this long without being a problem. */
const SLOW_SECONDS = 20;

/** How a counter of /metrics is told. */
export const COUNTERS = {
  nightbus_provider_errors_total: {
    label: 'operation', name: 'Provider errors',
    next: 'The provider did not answer or refused. nightbus tries again with growing pauses; nothing is lost.',
  },
  nightbus_store_errors_total: {
    name: 'Store errors', next: 'Look at the disk space and permissions of data_dir, and at the log.',
  },
  nightbus_panics_total: { label: 'task', name: 'Contained panics', next: 'A fault of nightbus: please report it with the log.' },
  nightbus_unusable_lines_total: {
    label: 'reason', name: 'Unusable result lines', next: 'The provider sent lines that answer nobody; their requests are tried again.',
  },
  nightbus_requests_requeued_total: {
    label: 'reason', name: 'Requests queued again', next: 'They were not served by their batch and ride in a later one.',
  },
  nightbus_requests_refused_total: {
    label: 'code', name: 'Calls refused by nightbus', next: 'The answer says why. forbidden_origin: a web page tried to call nightbus.',
  },
  nightbus_passthrough_marked_total: {
    label: 'reason', name: 'Marked, but passed through live', next: 'These calls were marked and could not be deferred; they cost the live price.',
  },
};
const ALARMING = ['nightbus_provider_errors_total', 'nightbus_store_errors_total', 'nightbus_panics_total'];

/** Remembers counters from one reading to the next. */
export class Watch {
  #seen = new Map();

  /** Takes samples of /metrics; gives the rows of the counters above, with the time each was last seen to grow. */
  take(samples) {
    const first = this.#seen.size === 0;
    const rows = [];
    for (const { name, labels, value } of samples) {
      const about = COUNTERS[name];
      if (!about) continue;
      const kind = about.label ? (labels[about.label] ?? '') : '';
      const key = `${name} ${kind}`;
      const before = this.#seen.get(key);
      const grown = before ? value > before.value : !first && value > 0;
      const seen = { value, at: grown ? now() : (before?.at ?? null) };
      this.#seen.set(key, seen);
      if (value > 0) rows.push({ key, metric: name, name: about.name, kind, value, at: seen.at, next: about.next });
    }
    if (first) this.#seen.set('', { value: 0, at: null });
    return rows;
  }
}

/**
 * The present problems: `{text, href, notice}`; a notice asks for something and is no fault. `faults` are rows of
 * [`Watch`], `reasons` those of /readyz, `open` batches that have not ended, `flights` those that wait.
 */
export function problems({ status, faults, reasons, open, flights }) {
  const found = [];
  const add = (text, href, notice = false) => found.push({ text, href, notice });
  if (status.stopping) add('nightbus is stopping: it takes no deferred calls. What was accepted is kept.', '#/');
  for (const reason of reasons) add(`Not ready for deferred calls: ${reason}.`, '#/faults');
  for (const lane of status.lanes.filter((one) => one.held_back)) {
    const waits = lane.oldest_age_seconds === null ? '' : ` The oldest has waited ${duration(lane.oldest_age_seconds)}.`;
    add(`Lane ${lane.model}: ${counted(lane.queued_requests, 'request')} held back: ${lane.held_back}.${waits}`, '#/lanes');
  }
  const early = ({ state }) => ['prepared', 'uploaded'].includes(state);
  const stuck = open.filter((batch) => early(batch) && now() - batch.created_at > SLOW_SECONDS);
  if (stuck.length) {
    const requests = stuck.reduce((sum, { counts }) => sum + counts.total, 0);
    const age = duration(now() - Math.min(...stuck.map(({ created_at: at }) => at)));
    const why = stuck.find(({ trouble }) => trouble)?.trouble.message;
    add(`${counted(stuck.length, 'batch', 'batches')} with ${counted(requests, 'request')} could not be handed to the provider for ${age}${why ? ` (${why})` : ''}. nightbus keeps trying; nothing is lost.`, '#/batches?state=open');
  }
  const unseen = open.filter((batch) => !early(batch) && batch.trouble);
  if (unseen.length) {
    const age = duration(now() - Math.min(...unseen.map(({ trouble }) => trouble.since)));
    add(`Nothing has been heard of ${counted(unseen.length, 'batch', 'batches')} at the provider for ${age} (${unseen[0].trouble.message}). States and progress are as old as that. nightbus keeps asking; nothing is lost.`, '#/batches?state=open');
  }
  const fresh = faults.filter(({ metric, at }) => ALARMING.includes(metric) && at !== null && at > now() - RECENT_SECONDS);
  for (const fault of fresh) {
    add(`${fault.name}${fault.kind ? ` (${fault.kind})` : ''} in the last minutes. ${fault.next}`, '#/faults');
  }
  if (flights > 0) add(`${counted(flights, 'test flight')} ${flights === 1 ? 'waits' : 'wait'} for your decision.`, '#/flights', true);
  return found;
}
