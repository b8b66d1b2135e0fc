// Numbers, money and times as people read them, always with their unit. What is unknown is a dash, never a zero.
import { h } from './dom.js';

export const DASH = '–';
const whole = new Intl.NumberFormat();
const cents = new Intl.NumberFormat(undefined, { style: 'currency', currency: 'USD' });
const fractions = new Intl.NumberFormat(undefined, { style: 'currency', currency: 'USD', maximumSignificantDigits: 3 });
const timeOfDay = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const dayAndTime = new Intl.DateTimeFormat(undefined, {
  month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit',
});
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' });

const known = (value) => typeof value === 'number' && Number.isFinite(value);

/** 12,345 */
export const count = (value) => (known(value) ? whole.format(value) : DASH);

/** `1 request`, `12 requests`. */
export const counted = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** US dollars: cents from one dollar on, three digits below. */
export function dollars(value) {
  if (!known(value)) return DASH;
  if (value === 0 || Math.abs(value) >= 1) return cents.format(value);
  return Math.abs(value) < 0.000001 ? `<${fractions.format(0.000001)}` : fractions.format(value);
}

/** Sums of many requests: too small an amount is said to be so. */
export const sum = (value) => (value !== 0 && Math.abs(value) < 0.0001 ? '<$0.0001' : dollars(value));

/** 1.5 MiB */
export function bytes(value) {
  if (!known(value)) return DASH;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(unit && value < 10 ? 1 : 0)} ${units[unit]}`;
}

/** Seconds as `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds) {
  if (!known(seconds)) return DASH;
  seconds = Math.max(0, Math.round(seconds));
  const pair = (size, unit, below, belowUnit) => {
    const rest = Math.floor((seconds % size) / below);
    return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${belowUnit}` : ''}`;
  };
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return pair(60, 'min', 1, 's');
  if (seconds < 86400) return pair(3600, 'h', 60, 'min');
  return pair(86400, 'd', 3600, 'h');
}

/** 0.42 as `42 %`; never 100 before the end, never 0 after the beginning. */
export function percent(share) {
  if (!known(share)) return DASH;
  const rounded = Math.round(share * 100);
  if (rounded === 100 && share < 1) return '99 %';
  return rounded === 0 && share > 0 ? '<1 %' : `${rounded} %`;
}

/** Unix seconds as text: the time today, day and time otherwise. */
export function clock(unix) {
  if (!known(unix)) return DASH;
  const at = new Date(unix * 1000);
  return (at.toDateString() === new Date().toDateString() ? timeOfDay : dayAndTime).format(at);
}

/** Unix seconds as a `<time>`. */
export function time(unix) {
  if (!known(unix)) return DASH;
  const at = new Date(unix * 1000);
  return h('time', { datetime: at.toISOString(), title: exact.format(at) }, clock(unix));
}

/** Seconds since the epoch. */
export const now = () => Date.now() / 1000;

/** An id, short enough for a table: its kind and its end, which is what differs. */
export const shortId = (id) => (id && id.length > 18 ? `${id.slice(0, 4)}…${id.slice(-8)}` : (id ?? DASH));

/** When a batch or request is expected: `expected_at` as Unix seconds, or none. */
export const expected = (object) => (known(object?.expected_at) ? object.expected_at : null);
