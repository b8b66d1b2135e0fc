// Elements without markup: everything that comes from the API becomes a text node, so nothing in it can run.

/**
 * An element. In `attributes`, `on…` is a listener, `true` an empty attribute, and false, null or undefined none.
 * Children may be nodes, texts, lists of them, and null.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** Children as `Element.append` takes them. */
export function nodes(children) {
  return children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...nodes(children));
  return element;
}

/** Replaces what is in `element`, unless it would say the same again (a screen reader would read it again). */
export function say(element, ...children) {
  const fresh = h('div', {}, ...children);
  if (element.isEqualNode(fresh) || sameChildren(element, fresh)) return;
  element.replaceChildren(...fresh.childNodes);
}

function sameChildren(one, other) {
  const [a, b] = [[...one.childNodes], [...other.childNodes]];
  return a.length === b.length && a.every((node, at) => node.isEqualNode(b[at]));
}

/** Shows or hides. */
export function show(element, visible) {
  element.toggleAttribute('hidden', !visible);
}

/** Calls `draw` with the width of `element` whenever that changes. */
export function onWidth(element, draw) {
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.round(element.clientWidth);
    if (width > 0 && width !== last) draw((last = width));
  }).observe(element);
}
