// Requests: newest first, filtered by state and tag (by the API), searched by words (here, page by page). Never bodies.
import { get } from '../api.js';
import { h, say, show } from '../dom.js';
import { count, counted, duration, now, time } from '../format.js';
import { badge, firstSteps, heading, link, money } from '../pieces.js';
import { table } from '../table.js';

const STATES = ['queued', 'submitted', 'completed', 'failed', 'cancelled'];
const PAGE = 50;
/** A search reads this many requests before it asks whether to go on. */
const SEARCH_STEP = 5_000;
const SEARCH_PAGE = 1_000;

const COLUMNS = [
  { label: 'Request' }, { label: 'State' }, { label: 'Model' }, { label: 'Endpoint' }, { label: 'Tag' }, { label: 'Made' },
  { label: 'Wait', number: true }, { label: 'Cost', number: true }, { label: 'Saved', number: true },
];

/** The state of a request, with the status of its answer where that is an error. */
export const stateOf = (request) =>
  badge(request.state, request.status_code >= 400 ? `status ${request.status_code}` : null);

/** A table of requests; also used by the faults. */
export function requestTable(caption, empty) {
  const list = table({ caption, columns: COLUMNS, empty });
  const cells = (request) => [
    link(request.id), stateOf(request), request.model, request.endpoint, request.tag ?? '–', time(request.created_at),
    duration((request.finished_at ?? now()) - request.created_at),
    request.cost_usd === null ? '–' : money(request.cost_usd),
    request.saved_usd === null ? '–' : money(request.saved_usd),
  ];
  return {
    element: list.element,
    update: (requests) => list.update(requests.map((request) => ({ key: request.id, cells: cells(request) }))),
  };
}

const SEARCHED = ['id', 'batch_id', 'model', 'endpoint', 'tag', 'service', 'credential'];

/** Whether every word of `words` is in what the request is told apart by. */
export function matches(request, words) {
  const text = [...SEARCHED.map((name) => request[name]), request.error?.code, request.error?.message, request.status_code]
    .join(' ').toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

export function open(app, _rest, parameters) {
  const wish = { state: '', tag: '', q: '' };
  const field = (name, label, control) => h('label', { for: name }, label, control);
  const state = h('select', { id: 'state' }, h('option', { value: '' }, 'Any'), STATES.map((one) => h('option', { value: one }, one)));
  const tag = h('input', { id: 'tag', type: 'text', size: '12', autocomplete: 'off', spellcheck: 'false', placeholder: 'nightly-eval' });
  const q = h('input', { id: 'q', type: 'search', size: '24', autocomplete: 'off', spellcheck: 'false', placeholder: 'id, batch, model, error…' });
  const form = h('form', { class: 'filters', role: 'search', 'aria-label': 'Requests' },
    field('q', 'Search', q), field('state', 'State', state), field('tag', 'Tag', tag),
    h('button', { type: 'submit', class: 'button' }, 'Search'));
  const found = h('p', { class: 'quiet', role: 'status' });
  const list = requestTable('Requests, newest first', () => nothing(wish, app.status));
  const more = h('button', { type: 'button', class: 'button', hidden: true }, 'Show older requests');
  const element = h('div', { class: 'stack' }, heading('Requests'), form, found, list.element, h('p', { class: 'more' }, more));
  let size = PAGE;
  let scope = SEARCH_STEP;
  let turn = 0;

  const take = (next) => {
    for (const name of Object.keys(wish)) wish[name] = next.get(name) ?? '';
    [state.value, tag.value, q.value] = [wish.state, wish.tag, wish.q];
    [size, scope] = [PAGE, SEARCH_STEP];
  };
  take(parameters);

  const go = () => {
    const words = q.value.trim();
    if (/^req_\w{20,}$/.test(words)) {
      location.hash = `#/requests/${words}`;
      return;
    }
    const set = Object.entries({ q: words, state: state.value, tag: tag.value.trim() }).filter(([, value]) => value);
    const hash = set.length ? `#/requests?${new URLSearchParams(set)}` : '#/requests';
    if (location.hash === hash) app.refresh();
    else location.hash = hash;
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    go();
  });
  state.addEventListener('change', go);
  more.addEventListener('click', () => {
    if (wish.q) scope += SEARCH_STEP;
    else size += PAGE;
    refresh();
  });

  async function refresh() {
    // A slower answer to an older question must not replace that to the present one.
    const mine = (turn += 1);
    const answer = wish.q ? await search(wish, scope) : await get('/api/requests', { state: wish.state, tag: wish.tag, limit: String(Math.min(size, 1000)) });
    if (mine !== turn) return;
    list.update(answer.data);
    show(more, answer.has_more && (wish.q || size < 1000));
    more.textContent = wish.q ? 'Search older requests' : 'Show older requests';
    say(found, summary(wish, answer, app.status));
  }

  return {
    title: 'Requests',
    element,
    refresh,
    change(next) {
      take(next);
      return refresh();
    },
  };
}

/** Reads at most `scope` requests and keeps those that match. */
async function search({ state, tag, q }, scope) {
  const data = [];
  let [looked, after, more] = [0, '', true];
  while (more && looked < scope && data.length < 200) {
    const page = await get('/api/requests', { state, tag, after, limit: String(SEARCH_PAGE) });
    data.push(...page.data.filter((request) => matches(request, q)));
    looked += page.data.length;
    [more, after] = [page.has_more, page.next];
  }
  return { data: data.slice(0, 200), has_more: more, looked };
}

function summary(wish, answer, status) {
  const shown = counted(answer.data.length, 'request');
  if (wish.q) {
    const looked = answer.has_more ? `the newest ${count(answer.looked)}` : `all ${count(answer.looked)}`;
    return `${shown} found in ${looked}.`;
  }
  const total = wish.tag ? null : wish.state ? status?.requests[wish.state] : Object.values(status?.requests ?? {}).reduce((sum, one) => sum + one, 0);
  return total > answer.data.length ? `The newest ${count(answer.data.length)} of ${count(total)}.` : `${shown}.`;
}

function nothing(wish, status) {
  if (!wish.q && !wish.state && !wish.tag) return firstSteps(status);
  return h('p', {}, 'No request matches. ', h('a', { href: '#/requests' }, 'Show all'));
}

