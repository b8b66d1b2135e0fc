// Two small charts in SVG, drawn at the size they are shown so that text keeps its size: money by day, and the queue
// since the page was opened. What they show also stands in a table or in words beside them.
import { h, onWidth, say, svg } from './dom.js';
import { count, counted, dollars, duration } from './format.js';

const HEIGHT = 190;
/** At the left there is room for `$0.000002`: the first calls cost that little. */
const EDGE = { top: 10, right: 6, bottom: 22, left: 74 };

/** Steps of an axis from 0 to at least `most`, at most `parts` of them, at 1, 2 or 5 times a power of ten. */
export function ticks(most, parts = 4) {
  if (!(most > 0)) return [0, 1];
  const raw = most / parts;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= raw * 0.999999);
  const steps = Math.ceil(most / step - 1e-9);
  return Array.from({ length: steps + 1 }, (_, at) => at * step);
}

function axis(width, marks, label) {
  const most = marks.at(-1);
  const y = (value) => EDGE.top + (1 - value / most) * (HEIGHT - EDGE.top - EDGE.bottom);
  const lines = marks.flatMap((mark) => [
    svg('line', { class: 'grid', x1: EDGE.left, x2: width - EDGE.right, y1: y(mark), y2: y(mark) }),
    svg('text', { class: 'tick', x: EDGE.left - 8, y: y(mark) + 4, 'text-anchor': 'end' }, label(mark)),
  ]);
  return { y, lines };
}

const frame = (width, label, ...children) =>
  svg('svg', { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', 'aria-label': label }, ...children);

/** Bars of what was paid and saved. `update(days)` takes `{label, paid, saved, requests}`, oldest first. */
export function moneyChart() {
  const [plot, readout] = [h('div', { class: 'plot' }), h('p', { class: 'readout', 'aria-hidden': 'true' })];
  const legend = h('ul', { class: 'legend', 'aria-label': 'Key' },
    h('li', { class: 'saved' }, 'saved'), h('li', { class: 'paid' }, 'paid'));
  const element = h('div', { class: 'card chart' }, h('div', { class: 'above' }, legend, readout), plot);
  let [days, width] = [[], 0];

  function draw() {
    if (!width) return;
    const marks = ticks(Math.max(...days.map(({ paid, saved }) => paid + Math.max(0, saved))));
    const { y, lines } = axis(width, marks, dollars);
    const slot = (width - EDGE.left - EDGE.right) / Math.max(1, days.length);
    const bar = Math.max(1, Math.min(36, slot * 0.68));
    const every = Math.ceil(64 / slot);
    const bars = days.flatMap((day, at) => {
      const x = EDGE.left + at * slot + (slot - bar) / 2;
      const [paid, saved] = [y(0) - y(day.paid), y(0) - y(Math.max(0, day.saved))];
      const parts = [
        svg('rect', { class: 'paid', x, width: bar, y: y(0) - paid, height: Math.max(0, paid) }),
        svg('rect', { class: 'saved', x, width: bar, y: y(0) - paid - saved, height: Math.max(0, saved) }),
      ];
      if ((days.length - 1 - at) % every === 0) {
        const middle = Math.min(x + bar / 2, width - EDGE.right - 20);
        parts.push(svg('text', { class: 'tick', x: middle, y: HEIGHT - 6, 'text-anchor': 'middle' }, day.label));
      }
      return parts;
    });
    const total = (name) => days.reduce((sum, day) => sum + day[name], 0);
    const label = `Bars for ${counted(days.length, 'day')}: paid ${dollars(total('paid'))}, saved ${dollars(total('saved'))}. The table below has the numbers.`;
    plot.replaceChildren(frame(width, label, ...lines, ...bars));
  }

  plot.addEventListener('pointermove', (event) => {
    const across = event.clientX - plot.getBoundingClientRect().left - EDGE.left;
    const day = days[Math.floor((across / (width - EDGE.left - EDGE.right)) * days.length)];
    readout.textContent = day ? describe(day) : '';
  });
  plot.addEventListener('pointerleave', () => (readout.textContent = ''));
  onWidth(plot, (wide) => {
    width = wide;
    draw();
  });
  return {
    element,
    update(next) {
      days = next;
      draw();
    },
  };
}

const describe = (day) =>
  `${day.label}: paid ${dollars(day.paid)}, saved ${dollars(day.saved)}, ${counted(day.requests, 'request')}`;

const [SHORTEST, LONGEST] = [60, 600];

/** Requests queued and in batches since the page was opened, as two lines. `show(samples)` takes `{at, queued, submitted}`. */
export function queueChart() {
  const plot = h('div', { class: 'plot' });
  const words = h('p', { class: 'readout' });
  const legend = h('ul', { class: 'legend', 'aria-label': 'Key' },
    h('li', { class: 'queued' }, 'queued'), h('li', { class: 'submitted' }, 'in batches'));
  const element = h('div', { class: 'card chart' }, h('div', { class: 'above' }, legend, words), plot);
  let [width, samples] = [0, []];

  function draw() {
    const last = samples.at(-1);
    if (!width || !last) return;
    const most = Math.max(4, ...samples.map(({ queued, submitted }) => Math.max(queued, submitted)));
    const { y, lines } = axis(width, ticks(most), count);
    const span = Math.max(SHORTEST, last.at - samples[0].at);
    const x = (at) => EDGE.left + (1 - (last.at - at) / span) * (width - EDGE.left - EDGE.right);
    const path = (name) => samples.map((sample, at) =>
      at === 0 ? `M${x(sample.at)} ${y(sample[name])}` : `H${x(sample.at)}V${y(sample[name])}`).join('');
    const label = `The last ${duration(span)}: now ${count(last.queued)} queued, ${count(last.submitted)} in batches`;
    plot.replaceChildren(frame(width, label, ...lines,
      svg('text', { class: 'tick', x: EDGE.left, y: HEIGHT - 6 }, `${duration(span)} ago`),
      svg('text', { class: 'tick', x: width - EDGE.right, y: HEIGHT - 6, 'text-anchor': 'end' }, 'now'),
      ...['submitted', 'queued'].flatMap((name) => [
        svg('path', { class: `line ${name}`, d: path(name) }),
        svg('circle', { class: name, cx: x(last.at), cy: y(last[name]), r: 3.5 }),
      ])));
  }

  onWidth(plot, (wide) => {
    width = wide;
    draw();
  });
  return {
    element,
    show(all) {
      samples = all.filter(({ at }) => at >= all.at(-1).at - LONGEST);
      say(words, `highest ${count(Math.max(...samples.map(({ queued }) => queued)))} queued`);
      draw();
    },
  };
}
