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

/**
 * Makes `element` say `children`, and touches only what differs: focus and selections stay, and a screen reader does not
 * read again what has not changed. Listeners of `children` must not depend on what is said.
 */
export function say(element, ...children) {
  patch(element, h('div', {}, ...children));
}

function patch(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((next, at) => {
    const present = old.childNodes[at];
    if (!present) old.append(next);
    else if (present.nodeName !== next.nodeName) present.replaceWith(next);
    else if (present.nodeType === Node.TEXT_NODE) {
      if (present.data !== next.data) present.data = next.data;
    } else if (!present.isEqualNode(next)) {
      for (const { name } of [...present.attributes]) if (!next.hasAttribute(name)) present.removeAttribute(name);
      for (const { name, value } of next.attributes) if (present.getAttribute(name) !== value) present.setAttribute(name, value);
      patch(present, next);
    }
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
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
