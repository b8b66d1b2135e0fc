// What batches saved: by day as bars, and by whatever the calls can be told apart by.
import { h, say, show } from '../dom.js';
import { moneyChart } from '../chart.js';
import { clock, count, dollars, percent } from '../format.js';
import { amounts, byDay, savings } from '../ledger.js';
import { facts, heading, section } from '../pieces.js';
import { table } from '../table.js';

const RANGES = { 7: '7 days', 30: '30 days', 90: '90 days' };
const GROUPS = {
  tag: 'tag', model: 'model', service: 'service', key: 'client key', provider: 'provider', credential: 'credential',
  user_agent: 'calling program',
};

const COLUMNS = [
  { label: 'Requests', number: true }, { label: 'Paid', number: true }, { label: 'Live price', number: true },
  { label: 'Saved', number: true }, { label: 'Share', number: true }, { label: 'Paid twice', number: true },
];

export function open(app, _rest, parameters) {
  const choice = (id, options, value, label) =>
    h('label', { for: id }, label, h('select', { id }, Object.entries(options).map(([key, text]) =>
      h('option', { value: key, selected: key === value }, text))));
  let range = parameters.get('days') in RANGES ? parameters.get('days') : '30';
  let group = parameters.get('by') in GROUPS ? parameters.get('by') : 'tag';
  const ranges = choice('range', RANGES, range, 'Time');
  const groups = choice('by', GROUPS, group, 'Grouped by');
  const chart = moneyChart();
  const days = table({ caption: 'Savings by day', columns: [{ label: 'Day (UTC)' }, ...COLUMNS] });
  const parts = table({
    caption: 'Savings by group', columns: [{ label: 'Name' }, ...COLUMNS],
    empty: 'No finished request in this time. Mark calls with x-nightbus-tag to see who saves what.',
  });
  const sums = h('div');
  const none = h('p', { class: 'card quiet pad', hidden: true },
    'This version keeps no history by day: only the sums since the process started are known.');
  const history = h('div', { class: 'stack tight' }, chart.element,
    h('details', { class: 'card pad' }, h('summary', {}, 'The same as a table'), days.element));
  const unsplit = h('p', { class: 'card quiet pad', hidden: true }, 'This version cannot split its sums that way.');
  const element = h('div', { class: 'stack' },
    heading('Savings', ranges), sums,
    section('By day', history, none),
    section('By group', h('div', { class: 'filters' }, groups), parts.element, unsplit));

  const choose = (name, value) => {
    const next = new URLSearchParams({ days: range, by: group });
    next.set(name, value);
    location.hash = `#/savings?${next}`;
  };
  ranges.addEventListener('change', (event) => choose('days', event.target.value));
  groups.addEventListener('change', (event) => choose('by', event.target.value));

  async function refresh() {
    const since = `${range}d`;
    const daily = await savings({ by: 'day', since });
    const split = await savings({ by: group, since });
    show(history, daily.groups !== null);
    show(none, daily.groups === null);
    if (daily.groups) {
      const filled = byDay(daily.groups, Number(range));
      chart.update(filled);
      days.update([...daily.groups].sort((a, b) => (a.key < b.key ? 1 : -1)).map(row));
    }
    show(parts.element, split.groups !== null);
    show(unsplit, split.groups === null);
    parts.update((split.groups ?? []).map(row));
    say(sums, total(daily, app.status));
  }

  return {
    title: 'Savings',
    element,
    refresh,
    change(next) {
      range = next.get('days') ?? range;
      group = next.get('by') ?? group;
      return refresh();
    },
  };
}

function total(answer) {
  const { requests, paid, live, saved, wasted } = amounts(answer.totals);
  const none = requests === 0;
  return facts([
    ['Finished requests', count(requests)],
    ['Paid', none ? '–' : dollars(paid)],
    ['Live price', none ? '–' : dollars(live)],
    ['Saved', none ? '–' : `${dollars(saved)}${live > 0 ? ` (${percent(saved / live)})` : ''}`],
    ['Paid twice', wasted > 0 ? dollars(wasted) : null],
    ['Cache writes nobody read', coldWrites(answer.totals)],
    ['Since', answer.since ? clock(answer.since) : null],
  ], 'short');
}

function coldWrites({ cache_unread_tokens: tokens = 0, cache_unread_usd: usd = null }) {
  if (tokens === 0) return null;
  return usd === null ? `${count(tokens)} tokens` : `${dollars(usd)} (${count(tokens)} tokens)`;
}

const row = (group) => {
  const { requests, paid, live, saved, wasted } = amounts(group);
  const share = live > 0 ? percent(saved / live) : '–';
  const cells = [group.key || 'none', count(requests), dollars(paid), dollars(live), dollars(saved), share, dollars(wasted)];
  return { key: String(group.key), cells };
};
