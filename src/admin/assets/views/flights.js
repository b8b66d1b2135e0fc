// Test flights: the first requests of a new template, tried before the rest is bought. Those in doubt wait for a person.
import { decideFlight } from '../actions.js';
import { h } from '../dom.js';
import { DASH, count, shortId, time } from '../format.js';
import { badge, heading } from '../pieces.js';
import { table } from '../table.js';

const stateOf = (flight) => flight.state ?? flight.verdict ?? 'unknown';

/** Whether a flight waits for a decision. */
export const isWaiting = (flight) => ['grounded', 'waiting'].includes(stateOf(flight));

const reasons = (flight) =>
  (flight.reasons ?? []).map((reason) => (typeof reason === 'string' ? reason : (reason.message ?? JSON.stringify(reason))));

export function open(app) {
  const list = table({
    caption: 'Test flights',
    columns: [
      { label: 'Flight' }, { label: 'State' }, { label: 'Model' }, { label: 'Tag' }, { label: 'Waiting', number: true },
      { label: 'Made' }, { label: 'Reasons', text: true }, { label: 'Decide' },
    ],
    empty: 'No test flight yet. The first requests of a new template are tried live before many of them are bought as a batch.',
  });
  const element = h('div', { class: 'stack' },
    heading('Test flights'),
    h('p', { class: 'quiet' }, 'A grounded flight had answers that look wrong. Approve it to submit what waits behind it; reject it to refuse that with 422.'),
    list.element);
  const decide = async (flight, verdict) => (await decideFlight(flight, verdict)) && app.refresh();
  const buttons = (flight) => isWaiting(flight)
    ? h('span', { class: 'buttons' },
      h('button', { type: 'button', class: 'button small', 'aria-label': `Approve flight ${flight.id}`, onclick: () => decide(flight, 'approve') }, 'Approve'),
      h('button', { type: 'button', class: 'button small danger', 'aria-label': `Reject flight ${flight.id}`, onclick: () => decide(flight, 'reject') }, 'Reject'))
    : DASH;

  async function refresh() {
    list.update((app.flights ?? []).map((flight) => ({
      key: flight.id,
      cells: [
        h('code', { title: flight.id }, shortId(flight.id)), badge(stateOf(flight)), flight.model ?? DASH, flight.tag ?? DASH,
        count(flight.waiting_requests ?? flight.waiting ?? flight.requests), time(flight.created_at),
        reasons(flight).length ? h('ul', {}, reasons(flight).map((reason) => h('li', {}, reason))) : DASH, buttons(flight),
      ],
    })));
  }

  return { title: 'Test flights', element, refresh };
}
