// One batch: its state, its times, its files, and the way to cancel it.
import { cancelBatch } from '../actions.js';
import { get } from '../api.js';
import { h, say, show } from '../dom.js';
import { count, duration, now, time } from '../format.js';
import { badge, ended, facts, heading, progress, section } from '../pieces.js';
import { timeline } from '../timeline.js';
import { due } from './batches.js';

export function open(app, id) {
  let batch = null;
  const cancel = h('button', { type: 'button', class: 'button danger', hidden: true }, 'Cancel batch');
  cancel.addEventListener('click', async () => (await cancelBatch(batch)) && app.refresh());
  const [body, bars] = [h('div', { class: 'stack tight' }), timeline()];
  const element = h('div', { class: 'stack' },
    h('p', { class: 'back' }, h('a', { href: '#/batches' }, 'Batches')),
    heading('Batch', cancel), body, section('Time', bars.element));

  async function refresh() {
    try {
      batch = await get(`/api/batches/${encodeURIComponent(id)}`);
    } catch (error) {
      if (error.status !== 404) throw error;
      say(body, h('p', { class: 'card pad' }, error.message));
      bars.update([]);
      return;
    }
    show(cancel, !ended(batch.state));
    bars.update([batch]);
    say(body, describe(batch));
  }

  return { title: `Batch ${id}`, element, refresh };
}

function describe(batch) {
  const { completed, failed, total } = batch.counts;
  const files = [['Input file', batch.input_file_id], ['Output file', batch.output_file_id], ['Error file', batch.error_file_id]];
  return [
    batch.error ? h('p', { class: 'card pad problem' }, batch.error) : null,
    batch.trouble ? h('p', { class: 'card pad problem' }, `Nothing has been heard of it at the provider for ${duration(now() - batch.trouble.since)}: ${batch.trouble.message}. nightbus keeps trying.`) : null,
    facts([
      ['State', badge(batch.state)],
      ['Progress', progress(batch)],
      ['Requests', `${count(total)}: ${count(completed)} done, ${count(failed)} failed`],
      ['Expected', due(batch) === null ? null : time(due(batch))],
      ['Very likely by', due(batch) === null ? null : time(batch.expected_by)],
      ['Model', batch.model],
      ['Endpoint', batch.endpoint],
      ['Provider', batch.provider],
      ['Their id', batch.provider_batch_id && h('code', {}, batch.provider_batch_id)],
      ['Their status', batch.provider_status],
      ['Id', h('code', {}, batch.id)],
      ['Made', time(batch.created_at)],
      ['Submitted', batch.submitted_at === null ? 'not yet' : time(batch.submitted_at)],
      ['Ended', batch.ended_at === null ? 'not yet' : time(batch.ended_at)],
      [batch.ended_at === null ? 'Age' : 'Took', duration((batch.ended_at ?? now()) - batch.created_at)],
      ['Credential', h('code', {}, batch.credential)],
      ['Lane', batch.lane],
      ...files.map(([name, file]) => [name, file && h('code', {}, file)]),
    ]),
    h('p', {}, h('a', { href: `#/requests?q=${encodeURIComponent(batch.id)}` }, 'Requests of this batch')),
  ];
}
