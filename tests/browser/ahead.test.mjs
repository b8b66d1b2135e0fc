// Answers that the admin API gives where there is something to tell: history by day, test flights, expected times. The
// answers are made here, in the shapes of the contract, so that the page is tested apart from what fills them.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';

import { Browser, Stand, shows, until } from './harness.mjs';

let browser;
let stand;
before(async () => {
  browser = await Browser.start();
  stand = await Stand.start({ batchSeconds: 600 });
  await stand.deferMany(2);
});
afterEach(() => browser?.sweep());
after(async () => {
  await browser?.stop();
  await stand?.stop();
});

const FLIGHT = {
  id: 'flt_1', state: 'grounded', model: 'gpt-6-luna', tag: 'nightly', waiting_requests: 1200, created_at: 1_790_000_000,
  reasons: ['2 of 5 answers were cut off'],
};

/** Opens `place` with `answers` instead of what these paths of the API say. */
async function open(place, answers) {
  const page = await browser.open('about:blank');
  for (const [path, answer] of Object.entries(answers)) {
    await page.route((url) => url.pathname === path, (route) => route.fulfill({ json: typeof answer === 'function' ? answer(route.request()) : answer }));
  }
  await page.goto(`${stand.admin}/#/${place}`);
  return page;
}

test('savings by day are bars, a table, and sums; what is missing is left out', async () => {
  const today = new Date().toISOString().slice(0, 10);
  const sums = { requests: 40, paid_usd: 1.5, live_usd: 3, saved_usd: 1.5, wasted_usd: 0.25 };
  const asked = [];
  const page = await open('savings', {
    '/api/savings': (request) => {
      const by = new URL(request.url()).searchParams;
      asked.push(`${by.get('by')} ${by.get('since')}`);
      return { totals: sums, groups: by.get('by') === 'day' ? [{ key: today, ...sums }] : [{ key: 'nightly', requests: 40, saved_usd: 1.5 }] };
    },
  });
  await shows(page, '.facts', '$1.50 (50 %)');
  await shows(page, '.facts', '$0.25');
  await page.getByRole('img', { name: 'Bars for 30 days: paid $1.50, saved $1.50' }).waitFor();
  await shows(page, 'tbody tr', 'nightly');
  await page.getByLabel('Grouped by').selectOption('model');
  await page.getByLabel('Time').selectOption('7');
  await page.getByRole('img', { name: 'Bars for 7 days' }).waitFor();
  // The page asks for the bars and for the table on their own: the second may be on its way when the first is drawn.
  await until('the bars and the table of seven days were asked for', () => ['tag 30d', 'model 7d', 'day 7d'].every((one) => asked.includes(one)));
  await page.getByText('The same as a table').click();
  await shows(page, 'details tbody tr', today);
  await page.done();
});

test('test flights wait for a decision, and a decision is asked about', async () => {
  const decided = [];
  let flights = [FLIGHT];
  const page = await open('', {
    '/api/flights': () => ({ object: 'list', data: flights, has_more: false, next: null }),
    '/api/flights/flt_1/approve': (request) => {
      decided.push(request.method());
      flights = [{ ...FLIGHT, state: 'approved' }];
      return { message: '1,200 requests are being submitted.' };
    },
  });
  await shows(page, '.problems .notice', '1 test flight waits for your decision.');
  await shows(page, '#nav', 'Flights');
  await page.click('.problems a');
  await shows(page, 'tbody tr', '2 of 5 answers were cut off');
  await page.getByRole('button', { name: 'Approve flight flt_1' }).click();
  assert.deepEqual(decided, []);
  await page.getByRole('button', { name: 'Approve and submit' }).click();
  await shows(page, '#toast', '1,200 requests are being submitted.');
  await shows(page, '.state', 'approved');
  assert.deepEqual(decided, ['POST']);
  await page.done();
});

test('an expected time shows where it is known', async () => {
  const page = await open('', {
    '/api/batches': {
      object: 'list', has_more: false, next: null,
      data: [{
        id: 'bat_01a2087aa8d770008296869874c09c8b', object: 'nightbus.batch', state: 'submitted', provider: 'openai', model: 'gpt-6-luna',
        provider_status: 'in_progress', counts: { total: 10, completed: 4, failed: 0 }, progress: 0.4,
        created_at: Math.floor(Date.now() / 1000) - 60, ended_at: null, expected_at: Math.floor(Date.now() / 1000) + 600,
      }],
    },
  });
  await shows(page, '.tile', 'next expected');
  await page.click('#nav >> text=Batches');
  await page.locator('.bar.ahead').waitFor();
  await page.done();
});
