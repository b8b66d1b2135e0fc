// Sums of money from /api/savings. A version without history refuses `since` and most of `by`: that is remembered, and
// what there is (the sums since the start) is shown instead.
import { get } from './api.js';

const refused = new Set();

/** `{totals, groups, since}`; `groups` is null where this version cannot answer `by`. */
export async function savings({ by, since } = {}) {
  const key = `${by} ${since}`;
  if (by && !refused.has(key)) {
    try {
      return await get('/api/savings', { by, since });
    } catch (error) {
      if (![400, 404, 501].includes(error.status)) throw error;
      refused.add(key);
    }
  }
  return { ...(await get('/api/savings')), groups: null };
}

/** Fields of a group or of totals as numbers; what is missing stays undefined. */
export function amounts(sums) {
  const { requests, paid_usd: paid, saved_usd: saved, wasted_usd: wasted, priced_requests: priced } = sums ?? {};
  const live = sums?.live_usd ?? (paid !== undefined && saved !== undefined ? paid + saved : undefined);
  return { requests, paid, live, saved, wasted, priced };
}

const DAY_MS = 86_400_000;
const short = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric', timeZone: 'UTC' });

/** Groups by day as bars without gaps: the last `days` days (UTC), oldest first. */
export function byDay(groups, days) {
  const known = new Map(groups.map((group) => [String(group.key).slice(0, 10), amounts(group)]));
  const today = Math.floor(Date.now() / DAY_MS);
  return Array.from({ length: days }, (_, at) => {
    const date = new Date((today - days + 1 + at) * DAY_MS);
    const { paid = 0, saved = 0, wasted = 0, requests = 0 } = known.get(date.toISOString().slice(0, 10)) ?? {};
    return { label: short.format(date), paid, saved, wasted, requests };
  });
}
