// Everything at a glance: what was saved, what waits, what is wrong, and what is on its way.
import { flush } from '../actions.js';
import { get } from '../api.js';
import { moneyChart, queueChart } from '../chart.js';
import { h, say, show } from '../dom.js';
import { bytes, clock, count, counted, duration, expected, sum } from '../format.js';
import { amounts, byDay, savings } from '../ledger.js';
import { firstSteps, heading, section, tile } from '../pieces.js';
import { problems } from '../problems.js';
import { batchTable } from './batches.js';
import { isWaiting } from './flights.js';

const DAYS = 14;
const OPEN_BATCHES = 8;
const MONEY_MS = 10_000;

export function open(app) {
  const submit = h('button', { type: 'button', class: 'button primary' }, 'Submit queued now');
  submit.addEventListener('click', async () => (await flush(app.status.queue)) && app.refresh());
  const tiles = {
    today: tile('Saved today', 'gain'),
    total: tile('Saved in total', 'gain'),
    held: tile('Calls on the line'),
    queued: tile('Queued'),
    batches: tile('In batches'),
    oldest: tile('Oldest wait'),
  };
  const trouble = h('ul', { class: 'problems', 'aria-label': 'Present problems' });
  const [money, queue] = [moneyChart(), queueChart()];
  const history = section('Savings by day', money.element);
  const open = batchTable('Batches under way', 'Nothing is at a provider at the moment.');
  const first = h('div', { class: 'card pad', hidden: true });
  const work = h('div', { class: 'stack' },
    h('div', { class: 'pair' },
      history,
      section('Queue, live', queue.element)),
    section('Batches under way', open.element, h('p', { class: 'more' }, h('a', { href: '#/batches' }, 'All batches'))));
  const element = h('div', { class: 'stack' },
    heading('Overview', submit), trouble,
    h('dl', { class: 'tiles' }, Object.values(tiles).map(({ element: one }) => one)),
    first, work);
  let [moneyAt, ledger] = [-Infinity, null];

  async function refresh() {
    const { status } = app;
    if (performance.now() - moneyAt > MONEY_MS) {
      moneyAt = performance.now();
      ledger = await savings({ by: 'day', since: `${DAYS}d` }).then(async (found) =>
        found.groups ? { ...(await savings()), groups: found.groups } : found);
      show(history, ledger.groups !== null);
      if (ledger.groups) money.update(byDay(ledger.groups, DAYS));
    }
    const page = await get('/api/batches', { state: 'open', limit: '200' });
    const used = Object.values(status.requests).some((number) => number > 0) || amounts(ledger.totals).requests > 0;
    show(first, !used);
    show(work, used);
    if (!used) say(first, firstSteps(status));
    const waiting = (app.flights ?? []).filter(isWaiting).length;
    say(trouble, problems({ ...app, open: page.data, flights: waiting }).map(({ text, href, notice }) =>
      h('li', { class: notice && 'notice' }, h('a', { href }, text))));
    submit.disabled = status.queue.requests === 0;
    fill(tiles, status, ledger, page);
    open.update(page.data.slice(0, OPEN_BATCHES));
    queue.show(app.samples);
  }

  return { title: 'Overview', element, refresh };
}

function fill(tiles, status, ledger, page) {
  const [today, total] = [amounts(status.today), amounts(ledger.totals)];
  tiles.today.set(...gain(today, 'No call with a known price yet'));
  const since = ledger.since ? `since ${clock(ledger.since)}` : '';
  tiles.total.set(...gain(total, since));
  tiles.held.set(count(status.held_connections), status.held_connections ? 'callers waiting for their answer' : 'nobody waits');
  const { queue } = status;
  tiles.queued.set(count(queue.requests),
    queue.requests ? `${bytes(queue.bytes)} in ${counted(status.lanes.filter((lane) => lane.queued_requests).length, 'lane')}` : 'nothing waits for a batch');
  const under = ['prepared', 'uploaded', 'submitted'].reduce((sum, state) => sum + (status.batches[state] ?? 0), 0);
  const due = page.data.map(expected).filter((at) => at !== null);
  const eta = due.length ? `, next expected ${clock(Math.min(...due))}` : '';
  tiles.batches.set(count(status.requests.submitted ?? 0), `${counted(under, 'open batch', 'open batches')}${eta}`);
  tiles.oldest.set(...(queue.oldest_age_seconds === null ? ['none', 'nobody waits for a batch to leave'] : [duration(queue.oldest_age_seconds), 'for a batch to leave']));
}

/** The figure of a money tile and its note. Without a priced call there is no sum, not even zero. */
function gain({ saved, paid, live, priced, requests, wasted }, fallback) {
  if (saved === undefined || priced === 0 || requests === 0) return ['–', fallback];
  const unpriced = priced === undefined ? 0 : requests - priced;
  const notes = [`paid ${sum(paid)} instead of ${sum(live)}`];
  if (unpriced > 0) notes.push(`${counted(unpriced, 'call')} of unknown price`);
  if (wasted > 0) notes.push(`${sum(wasted)} paid twice`);
  return [sum(saved), notes.join('; ')];
}
