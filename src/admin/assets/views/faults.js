// Fallbacks and faults: who was served otherwise than by batch, what went wrong, and what to do about it.
import { get } from '../api.js';
import { h, say, show } from '../dom.js';
import { clock, count, percent, time } from '../format.js';
import { badge, heading, link, section } from '../pieces.js';
import { table } from '../table.js';
import { requestTable } from './requests.js';

const LISTED = 20;
const MEANING = {
  batch: 'half the live price',
  flex: 'live with the flex tier: half the live price',
  background_8h: 'in the background within 8 hours: 40 % below the live price',
  background_2h: 'in the background within 2 hours: 30 % below the live price',
  sync: 'live, at the full price',
  none: 'ended without an execution',
};

export function open(app) {
  const reasons = h('ul', { class: 'problems', 'aria-label': 'Not ready' });
  const services = table({
    caption: 'Requests by service',
    columns: [{ label: 'Service' }, { label: 'Requests', number: true }, { label: 'Share', number: true }, { label: 'Meaning', text: true }],
    empty: 'No request has ended since the start of the process.',
  });
  const counters = table({
    caption: 'Faults since the start',
    columns: [{ label: 'What' }, { label: 'Kind' }, { label: 'Times', number: true }, { label: 'Last seen' }, { label: 'What it means', text: true }],
    empty: 'No fault since the start of the process.',
  });
  const batches = table({
    caption: 'Batches that failed, expired or were cancelled',
    columns: [{ label: 'Batch' }, { label: 'State' }, { label: 'Model' }, { label: 'Requests', number: true }, { label: 'Ended' }, { label: 'Error', text: true }],
    empty: 'None among the newest batches.',
  });
  const failed = requestTable('Failed requests, newest first', 'No request has failed.');
  const all = h('p', { class: 'more' }, h('a', { href: '#/requests?state=failed' }, 'All failed requests'));
  const element = h('div', { class: 'stack' },
    heading('Fallbacks and faults'), reasons,
    section('Served by', services.element),
    section('Faults', counters.element),
    section('Failed batches', batches.element),
    section('Failed requests', failed.element, all));

  async function refresh() {
    say(reasons, app.reasons.map((reason) => h('li', {}, `Not ready for deferred calls: ${reason}.`)));
    const used = Object.entries(app.status.services);
    const total = used.reduce((sum, [, number]) => sum + number, 0);
    services.update(used.map(([name, number]) => ({
      key: name, cells: [name, count(number), percent(number / total), MEANING[name] ?? 'as the provider calls it'],
    })));
    counters.update(app.faults.map((fault) => ({
      key: fault.key,
      cells: [fault.name, fault.kind || '–', count(fault.value), fault.at === null ? 'before this page' : clock(fault.at), fault.next],
    })));
    const page = await get('/api/batches', { limit: '500' });
    const bad = page.data.filter((batch) => batch.error || ['failed', 'expired', 'cancelled'].includes(batch.state));
    batches.update(bad.slice(0, LISTED).map((batch) => ({
      key: batch.id,
      cells: [link(batch.id), badge(batch.state), batch.model, count(batch.counts.total), time(batch.ended_at), batch.error ?? '–'],
    })));
    const requests = await get('/api/requests', { state: 'failed', limit: String(LISTED) });
    failed.update(requests.data);
    show(all, requests.has_more);
  }

  return { title: 'Faults', element, refresh };
}
