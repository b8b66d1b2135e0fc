// Batches: as bars over time, and as a table of all that are kept.
import { cancelBatch } from '../actions.js';
import { get } from '../api.js';
import { h, show } from '../dom.js';
import { count, duration, expected, now, time } from '../format.js';
import { badge, ended, heading, link, progress, section } from '../pieces.js';
import { table } from '../table.js';
import { timeline } from '../timeline.js';

const PAGE = 50;

/** A table of batches; also used by the overview. `onCancel` adds a column with a button. */
export function batchTable(caption, empty, onCancel) {
  const columns = [
    { label: 'Batch' }, { label: 'State' }, { label: 'Model' }, { label: 'Progress' }, { label: 'Failed', number: true },
    { label: 'Age', number: true }, { label: 'Made' },
  ];
  if (onCancel) columns.push({ label: 'Act' });
  const list = table({ caption, columns, empty });
  const cells = (batch) => [
    link(batch.id),
    badge(batch.state, ended(batch.state) ? null : standing(batch)),
    batch.model,
    progress(batch),
    count(batch.counts.failed),
    duration((batch.ended_at ?? now()) - batch.created_at),
    time(batch.created_at),
    ...(onCancel ? [cancelButton(batch, onCancel)] : []),
  ];
  return {
    element: list.element,
    update: (batches) => list.update(batches.map((batch) => ({ key: batch.id, cells: cells(batch) }))),
  };
}

/** What the provider said last, and since when it says nothing. */
export const standing = ({ provider_status: said, trouble }) =>
  [said, trouble && `not heard of for ${duration(now() - trouble.since)}`].filter(Boolean).join(', ') || null;

const cancelButton = (batch, onCancel) =>
  ended(batch.state)
    ? null
    : h('button', { type: 'button', class: 'button small', 'aria-label': `Cancel batch ${batch.id}`, onclick: () => onCancel(batch) }, 'Cancel');

export function open(app, _rest, parameters) {
  let only = parameters.get('state') === 'open' ? 'open' : 'all';
  let size = PAGE;
  const filter = h('select', { id: 'which' }, h('option', { value: 'all' }, 'All'), h('option', { value: 'open' }, 'Not ended'));
  filter.value = only;
  filter.addEventListener('change', () => (location.hash = filter.value === 'open' ? '#/batches?state=open' : '#/batches'));
  const bars = timeline();
  const list = batchTable('Batches, newest first', () =>
    h('p', {}, only === 'open' ? 'Nothing is at a provider at the moment.' : 'No batch yet. One is made when a lane has been idle for a moment, is full, or is old enough.'),
  async (batch) => (await cancelBatch(batch)) && app.refresh());
  const more = h('button', { type: 'button', class: 'button', hidden: true }, 'Show older batches');
  more.addEventListener('click', () => {
    size += PAGE;
    refresh();
  });
  const times = section('Timeline', bars.element);
  const element = h('div', { class: 'stack' },
    heading('Batches', h('label', { for: 'which' }, 'Show', filter)),
    times,
    section('List', list.element, h('p', { class: 'more' }, more)));

  async function refresh() {
    const page = await get('/api/batches', { state: only, limit: String(Math.min(size, 1000)) });
    show(times, page.data.length > 0);
    bars.update(page.data);
    list.update(page.data);
    show(more, page.has_more && size < 1000);
  }

  return {
    title: 'Batches',
    element,
    refresh,
    change(next) {
      only = next.get('state') === 'open' ? 'open' : 'all';
      filter.value = only;
      return refresh();
    },
  };
}

/** When an open batch is expected, with the words for it. */
export const due = (batch) => (ended(batch.state) ? null : expected(batch));
