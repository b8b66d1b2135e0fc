// Batches as bars over time: when each was made, how long it took or has taken, and how far it is.
import { h, say } from './dom.js';
import { clock, counted, duration, expected, now, percent, shortId } from './format.js';
import { ended } from './pieces.js';

const ROWS = 24;

/** A list of bars. `update(batches)` takes batch objects, newest first. */
export function timeline() {
  const rows = h('ol', { class: 'bars' });
  const [from, to] = [h('span'), h('span')];
  const scale = h('div', { class: 'scale', 'aria-hidden': 'true' }, from, to);
  const element = h('div', { class: 'card timeline' }, rows, scale);

  function update(batches) {
    const shown = batches.slice(0, ROWS);
    element.hidden = shown.length === 0;
    if (!shown.length) return;
    const until = Math.max(now(), ...shown.map((batch) => expected(batch) ?? 0));
    const since = Math.min(...shown.map((batch) => batch.created_at), until - 30);
    const across = (at) => `${(((at - since) / (until - since)) * 100).toFixed(2)}%`;
    say(from, clock(since));
    say(to, until - now() > 1 ? clock(until) : `now, ${clock(until)}`);
    const focused = rows.contains(document.activeElement) && document.activeElement.getAttribute('href');
    rows.replaceChildren(...shown.map((batch) => row(batch, across)));
    if (focused) rows.querySelector(`a[href="${focused}"]`)?.focus();
  }

  return { element, update };
}

function row(batch, across) {
  const end = batch.ended_at ?? now();
  const open = !ended(batch.state);
  const bar = h('span', { class: `bar ${batch.state}` });
  place(bar, across, batch.created_at, end);
  if (open) {
    const done = h('span', { class: 'done' });
    done.style.width = `${(batch.progress * 100).toFixed(1)}%`;
    bar.append(done);
  }
  const track = h('span', { class: 'track', 'aria-hidden': 'true' }, bar);
  const due = open ? expected(batch) : null;
  if (due !== null && due > end) {
    const ahead = h('span', { class: 'bar ahead' });
    place(ahead, across, end, due);
    track.append(ahead);
  }
  const words = open
    ? `${percent(batch.progress)}, ${duration(end - batch.created_at)}`
    : `${batch.state}, ${duration(end - batch.created_at)}`;
  return h('li', {}, h('a', { href: `#/batches/${batch.id}`, title: `${batch.id}, ${batch.model}, ${batch.state}` },
    h('span', { class: 'name' }, h('span', { class: 'model' }, batch.model), ' ', h('small', {}, counted(batch.counts.total, 'request'))), track, ' ',
    h('span', { class: 'took' }, words), h('span', { class: 'sr' }, ` ${open ? batch.state : ''} batch ${shortId(batch.id)}`)));
}

/** Positions are set on the element itself: the page's policy allows no style in markup. */
function place(bar, across, begin, end) {
  bar.style.left = across(begin);
  bar.style.right = `calc(100% - ${across(end)})`;
}
