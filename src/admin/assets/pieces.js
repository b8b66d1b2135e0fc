// Small things that several views show.
import { h } from './dom.js';
import { DASH, count, dollars, percent, shortId } from './format.js';

const TERMINAL = ['completed', 'failed', 'expired', 'cancelled'];
/** Whether a batch or a request has ended. */
export const ended = (state) => TERMINAL.includes(state);

/** A state: its word and a mark of its own, never colour alone. */
export const badge = (state, note) =>
  h('span', { class: `state ${state}` }, h('i', { 'aria-hidden': 'true' }), note ? `${state}, ${note.replaceAll('_', ' ')}` : state);

/** A link to a batch or request. */
export function link(id, text = shortId(id)) {
  if (!id) return DASH;
  const place = id.startsWith('bat_') ? 'batches' : 'requests';
  return h('a', { href: `#/${place}/${id}`, class: 'id', title: id }, text);
}

/** How far a batch is. */
export function progress(batch) {
  const { completed, failed, total } = batch.counts;
  if (ended(batch.state)) return `${count(completed + failed)} of ${count(total)}`;
  return h('span', { class: 'progress' },
    h('progress', { max: '1', value: batch.progress, 'aria-label': `Progress of ${batch.id}` }),
    h('span', {}, `${percent(batch.progress)} of ${count(total)}`));
}

/** A heading with what belongs beside it. */
export const heading = (text, ...beside) =>
  h('div', { class: 'heading' }, h('h1', { tabindex: '-1' }, text), h('div', { class: 'beside' }, beside));

/** A titled part of a view; the title names the landmark. */
export function section(title, ...children) {
  const id = `part-${title.toLowerCase().replaceAll(/[^a-z]+/g, '-')}`;
  return h('section', { 'aria-labelledby': id }, h('h2', { id }, title), ...children);
}

/** A figure with its name and a note. `set(value, note)` changes it. */
export function tile(name, className = '') {
  const [value, note] = [h('dd', { class: 'value' }, DASH), h('dd', { class: 'note' })];
  const element = h('div', { class: `tile ${className}` }, h('dt', {}, name), value, note);
  const set = (text, more = '') => {
    if (value.textContent !== text) value.textContent = text;
    value.classList.toggle('none', text === DASH || text === 'none');
    if (note.textContent !== more) note.textContent = more;
  };
  return { element, set };
}

/** Names and values; values that are null are left out. */
export const facts = (pairs, kind = '') =>
  h('dl', { class: `card facts ${kind}` }, pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));

/** Text for copying, with a button. */
export function copyable(text, label) {
  const button = h('button', { type: 'button', class: 'button small', 'aria-label': `Copy ${label}` }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'Select and copy by hand';
    }
    setTimeout(() => (button.textContent = 'Copy'), 2_000);
  });
  return h('div', { class: 'copyable' }, h('pre', { tabindex: '0', 'aria-label': label }, text), button);
}

/** Money of one request; an unknown price is said, not guessed. */
export const money = (value) => (value === null || value === undefined ? 'price unknown' : dollars(value));

/** How a client is pointed at this nightbus. */
export function firstSteps(status) {
  const base = `OPENAI_BASE_URL=http://${status?.listen ?? '127.0.0.1:5050'}/v1`;
  return h('div', { class: 'first' },
    h('p', {}, h('strong', {}, 'No call has been deferred yet.'), ' Point an OpenAI client at nightbus and mark its calls:'),
    copyable(`export ${base}\nexport OPENAI_CUSTOM_HEADERS="x-nightbus-defer: true"`, 'the two environment variables'),
    h('p', { class: 'quiet' }, 'Calls without the mark pass straight through. Whatever arrives shows up here at once.'));
}
