// Tables that are updated in place: a row that says the same is left alone, and focus stays where it is. On a narrow
// screen each row is drawn as a card (parts.css), so the roles are written out: `display` would take them away.
import { h, nodes, say } from './dom.js';

/**
 * `columns`: `{label, number, text}`; only `text` may break into lines. `empty`: what stands there without rows (text, or a function that gives nodes).
 * `update(rows)` takes `{key, cells}`.
 */
export function table({ caption, columns, empty = 'Nothing here.' }) {
  const head = columns.map(({ label, number }) =>
    h('th', { scope: 'col', role: 'columnheader', class: number && 'n' }, label));
  const body = h('tbody', { role: 'rowgroup' });
  const element = h('table', { role: 'table' },
    h('caption', { class: 'sr' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, head)),
    body);
  const nothing = h('div', { class: 'empty' });
  const scroll = h('div', { class: 'scroll', role: 'group', 'aria-label': caption, tabindex: '0' }, element);
  const frame = h('div', { class: 'card flush' }, scroll, nothing);
  nothing.hidden = true;
  const rows = new Map();

  const build = ({ cells }) =>
    h('tr', { role: 'row' }, cells.map((cell, at) =>
      h('td', { role: 'cell', class: columns[at].number ? 'n' : columns[at].text && 'text', 'data-label': columns[at].label }, nodes([cell]))));

  function update(wanted) {
    scroll.hidden = wanted.length === 0;
    nothing.hidden = wanted.length > 0;
    if (!wanted.length) say(nothing, typeof empty === 'function' ? empty() : h('p', {}, empty));
    const focused = body.contains(document.activeElement) ? place(document.activeElement) : null;
    const keys = new Set(wanted.map(({ key }) => key));
    for (const [key, row] of rows) {
      if (keys.has(key)) continue;
      row.remove();
      rows.delete(key);
    }
    wanted.forEach((entry, at) => {
      const [old, fresh] = [rows.get(entry.key), build(entry)];
      const same = old?.isEqualNode(fresh);
      if (old && !same) old.replaceWith(fresh);
      const row = same ? old : fresh;
      rows.set(entry.key, row);
      if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
    });
    if (focused && document.activeElement === document.body) {
      rows.get(focused.key)?.querySelectorAll('a, button')[focused.at]?.focus();
    }
  }

  function place(active) {
    const row = active.closest('tr');
    const key = [...rows].find(([, other]) => other === row)?.[0];
    return key === undefined ? null : { key, at: [...row.querySelectorAll('a, button')].indexOf(active) };
  }

  return { element: frame, update };
}
