// Lanes: requests that may share a batch, and why a lane waits.
import { flush } from '../actions.js';
import { h } from '../dom.js';
import { bytes, count, duration } from '../format.js';
import { heading } from '../pieces.js';
import { table } from '../table.js';

export function open(app) {
  const submit = h('button', { type: 'button', class: 'button primary' }, 'Submit queued now');
  submit.addEventListener('click', async () => (await flush(app.status.queue)) && app.refresh());
  const list = table({
    caption: 'Lanes with work',
    columns: [
      { label: 'Model' }, { label: 'Endpoint' }, { label: 'Provider' }, { label: 'Credential' }, { label: 'Queued', number: true },
      { label: 'Size', number: true }, { label: 'Oldest wait', number: true }, { label: 'Open batches', number: true }, { label: 'Held back', text: true },
    ],
    empty: 'No lane has anything queued or on its way.',
  });
  const element = h('div', { class: 'stack' },
    heading('Lanes', submit),
    h('p', { class: 'quiet' }, 'Requests of one provider, credential, endpoint and model wait together and share batches. A lane leaves when nothing arrived for a while, when its oldest request is old enough, or when a batch is full.'),
    list.element);

  async function refresh() {
    const { lanes, queue } = app.status;
    submit.disabled = queue.requests === 0;
    const sorted = [...lanes].sort((a, b) => b.queued_requests - a.queued_requests || b.open_batches - a.open_batches);
    list.update(sorted.map((lane, at) => ({
      key: lane.lane ? `${lane.lane} ${lane.endpoint}` : String(at),
      cells: [
        lane.model, lane.endpoint, lane.provider, h('code', {}, lane.credential), count(lane.queued_requests),
        bytes(lane.queued_bytes), lane.oldest_age_seconds === null ? '–' : duration(lane.oldest_age_seconds), count(lane.open_batches),
        lane.held_back ? h('span', { class: 'problem' }, lane.held_back) : 'no',
      ],
    })));
  }

  return { title: 'Lanes', element, refresh };
}
