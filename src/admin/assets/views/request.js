// One request: what became of it, when, by which service and at which price. Never its body.
import { cancelRequest } from '../actions.js';
import { get } from '../api.js';
import { h, say, show } from '../dom.js';
import { count, duration, expected, now, time } from '../format.js';
import { facts, heading, link, money } from '../pieces.js';
import { stateOf } from './requests.js';

export function open(app, id) {
  let request = null;
  const cancel = h('button', { type: 'button', class: 'button danger', hidden: true }, 'Cancel request');
  cancel.addEventListener('click', async () => (await cancelRequest(request)) && app.refresh());
  const body = h('div', { class: 'stack tight' });
  const element = h('div', { class: 'stack' },
    h('p', { class: 'back' }, h('a', { href: '#/requests' }, 'Requests')), heading('Request', cancel), body);

  async function refresh() {
    try {
      request = await get(`/api/requests/${encodeURIComponent(id)}`);
    } catch (error) {
      if (error.status !== 404) throw error;
      say(body, h('p', { class: 'card pad' }, error.message));
      return;
    }
    show(cancel, request.state === 'queued');
    say(body, describe(request));
  }

  return { title: `Request ${id}`, element, refresh };
}

function describe(request) {
  const usage = Object.entries(request.usage ?? {}).filter(([, value]) => typeof value === 'number');
  const over = request.finished_at !== null;
  const due = over ? null : expected(request);
  return [
    request.error ? h('p', { class: 'card pad problem' }, h('strong', {}, request.error.code), ` ${request.error.message}`) : null,
    facts([
      ['State', stateOf(request)],
      ['Status of the answer', request.status_code],
      ['Service', request.service],
      ['Batch', request.batch_id && link(request.batch_id)],
      ['Expected', due === null ? null : time(due)],
      ['Very likely by', due === null ? null : time(request.expected_by)],
      ['Deadline', request.deadline_at === null ? null : time(request.deadline_at)],
      ['Model', request.model],
      ['Endpoint', request.endpoint],
      ['Tag', request.tag],
      ['Attempts', count(request.attempts)],
      ['Made', time(request.created_at)],
      ['Submitted', request.submitted_at === null ? null : time(request.submitted_at)],
      ['Finished', over ? time(request.finished_at) : null],
      [over ? 'Took' : 'Has waited', duration((request.finished_at ?? now()) - request.created_at)],
      ['Kept until', request.expires_at === null ? null : time(request.expires_at)],
      ['Cost', over ? money(request.cost_usd) : null],
      ['Saved', over ? money(request.saved_usd) : null],
      ...usage.map(([name, value]) => [name.replaceAll('_', ' ').replace(/^./, (one) => one.toUpperCase()), count(value)]),
      ['Id', h('code', {}, request.id)],
      ['Credential', h('code', {}, request.credential)],
      ['Result', h('code', {}, request.result_url)],
    ]),
  ];
}
