// What the dashboard shows and does, in front of a running nightbus: live changes, flush, cancel, search, restarts.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';

import { Browser, Stand, shows, until } from './harness.mjs';

/** Nothing leaves by itself: what is queued stays until somebody submits it. */
const PATIENT = { BATCHING__IDLE: '1h', BATCHING__MAX_AGE: '1h' };

let browser;
const stands = [];
before(async () => {
  browser = await Browser.start();
});
afterEach(() => browser?.sweep());
after(async () => {
  await browser?.stop();
  await Promise.all(stands.map((stand) => stand.stop()));
});

async function stage(options) {
  const stand = await Stand.start(options);
  stands.push(stand);
  return stand;
}

const figure = (page, name) => page.locator('.tile', { hasText: name }).locator('.value');
const states = async (stand) => (await stand.api('/api/status')).requests;

test('a new nightbus says how to begin, and shows the first call without a reload', async () => {
  const stand = await stage();
  const page = await browser.open(stand.admin);
  await shows(page, 'main', 'No call has been deferred yet');
  await shows(page, 'pre', 'OPENAI_BASE_URL=http://127.0.0.1');
  await shows(page, '#pulse', 'Live');
  await page.evaluate(() => (globalThis.loadedOnce = true));
  const { id } = await stand.defer('first');
  await stand.finished(id);
  await shows(page, 'h2', 'Batches under way');
  await page.click('#nav >> text=Requests');
  await shows(page, 'tbody tr', 'completed');
  await page.click('tbody a');
  await shows(page, 'main dl', id);
  await shows(page, 'main dl', 'batch');
  assert.equal(await page.evaluate(() => globalThis.loadedOnce), true);
  await page.done();
});

test('flush asks first, and does nothing without a yes', async () => {
  const stand = await stage({ settings: PATIENT });
  await stand.deferMany(3);
  const page = await browser.open(stand.admin);
  await until('three queued', async () => (await figure(page, 'Queued').textContent()) === '3');
  const submit = page.getByRole('button', { name: 'Submit queued now' });
  await submit.click();
  await shows(page, 'dialog', 'Submit 3 queued requests now?');
  await page.getByRole('button', { name: 'Let them wait' }).click();
  assert.equal((await states(stand)).queued, 3);
  await submit.click();
  await page.getByRole('button', { name: 'Submit now' }).click();
  await shows(page, '#toast', '3 requests are being submitted, from 1 lane.');
  await until('none queued', async () => (await states(stand)).queued === 0);
  await until('the page says so', async () => (await figure(page, 'Queued').textContent()) === '0');
  await until('nothing left to submit', () => submit.isDisabled());
  await page.done();
});

test('a batch is cancelled after a question', async () => {
  const stand = await stage({ batchSeconds: 2, faults: ['stuck-in-progress:always'] });
  await stand.deferMany(2);
  const batch = await until('a batch runs', async () =>
    (await stand.api('/api/batches')).data.find(({ provider_status: status }) => status === 'in_progress'));
  const page = await browser.open(`${stand.admin}/#/batches/${batch.id}`);
  const cancel = page.getByRole('button', { name: 'Cancel batch' });
  await cancel.click();
  await page.getByRole('button', { name: 'Let it run' }).click();
  assert.equal((await stand.api(`/api/batches/${batch.id}`)).state, 'submitted');
  await cancel.click();
  await page.getByRole('button', { name: 'Cancel the batch' }).click();
  await shows(page, '#toast', 'The provider is asked to cancel');
  await until('it is cancelled', async () => (await stand.api(`/api/batches/${batch.id}`)).state === 'cancelled');
  await shows(page, '.state', 'cancelled');
  await cancel.waitFor({ state: 'hidden' });
  await page.done();
});

test('a queued request is cancelled after a question, and a refusal is said in the dialog', async () => {
  const stand = await stage({ settings: PATIENT, batchSeconds: 600 });
  const [one, other] = [await stand.defer('one'), await stand.defer('other')];
  const page = await browser.open(`${stand.admin}/#/requests/${one.id}`);
  const cancel = page.getByRole('button', { name: 'Cancel request' });
  await cancel.click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel the request' }).click();
  await shows(page, '.state', 'cancelled');
  assert.equal((await stand.api(`/api/requests/${one.id}`)).state, 'cancelled');
  await page.done();
  // The second one leaves while the question stands.
  const late = await browser.open(`${stand.admin}/#/requests/${other.id}`, { expects: [/status of 409/] });
  await late.getByRole('button', { name: 'Cancel request' }).click();
  await fetch(`${stand.admin}/api/flush`, { method: 'POST' });
  await until('it has left', async () => (await states(stand)).submitted === 1);
  await late.getByRole('dialog').getByRole('button', { name: 'Cancel the request' }).click();
  await shows(late, 'dialog .problem', 'is in a provider batch already');
  await late.done();
});

test('requests are filtered by state and tag and searched by words', async () => {
  const stand = await stage({ settings: PATIENT });
  await stand.deferMany(2, { tag: 'labels' });
  const odd = await stand.defer('odd', { tag: 'nightly', model: '<img src=x onerror=alert(1)>' });
  const page = await browser.open(`${stand.admin}/#/requests`);
  const rows = page.locator('tbody tr');
  await until('three rows', async () => (await rows.count()) === 3);
  await page.getByLabel('Tag').fill('labels');
  await page.keyboard.press('Enter');
  await until('two rows', async () => (await rows.count()) === 2);
  await page.goto(`${stand.admin}/#/requests?q=ONERROR`);
  await until('one row', async () => (await rows.count()) === 1);
  await shows(page, 'tbody', '<img src=x onerror=alert(1)>');
  await shows(page, '[role=status]', '1 request found in all 3.');
  await page.getByLabel('State').selectOption('failed');
  await shows(page, '.empty', 'No request matches');
  await page.getByLabel('Search', { exact: true }).fill(odd.id);
  await page.keyboard.press('Enter');
  await shows(page, 'main dl', 'nightly');
  await page.done();
});

test('a restart shows as disconnected, and the page goes on by itself', async () => {
  const stand = await stage({ settings: PATIENT });
  await stand.defer('before');
  const page = await browser.open(stand.admin, { expects: [/net::ERR_/] });
  await until('one queued', async () => (await figure(page, 'Queued').textContent()) === '1');
  await stand.proxy.kill();
  await shows(page, '#lost', 'Disconnected. What is shown here is from');
  await shows(page, '#pulse', 'Disconnected');
  assert.equal(await figure(page, 'Queued').textContent(), '1');
  await stand.serve();
  await shows(page, '#pulse', 'Live');
  await page.locator('#lost').waitFor({ state: 'hidden' });
  await stand.defer('after');
  await until('two queued', async () => (await figure(page, 'Queued').textContent()) === '2');
  await page.done();
});

test('a provider that is down shows as a problem that says what to do', async () => {
  const stand = await stage();
  const { id } = await stand.defer('while it works');
  await stand.finished(id);
  const page = await browser.open(stand.admin);
  await shows(page, '#pulse', 'Live');
  await stand.simulator.kill();
  await stand.deferMany(5);
  await shows(page, '.problems', 'nothing is lost');
  await page.click('.problems a');
  await shows(page, 'h1', /Fallbacks and faults|Batches/);
  await page.goto(`${stand.admin}/#/faults`);
  await shows(page, 'tbody tr', 'Provider errors');
  await page.done();
});

test('opened after an outage began, the page says how old it is what it shows', async () => {
  const stand = await stage({ batchSeconds: 600 });
  await stand.defer('at the provider');
  await until('a batch is there', async () => (await stand.api('/api/batches')).data.find((batch) => batch.provider_status));
  await stand.simulator.kill();
  await until('it is noticed', async () => (await stand.api('/api/batches')).data[0].trouble);
  const page = await browser.open(stand.admin);
  await shows(page, '.problems', 'Nothing has been heard of 1 batch at the provider for');
  await shows(page, 'tbody tr', 'not heard of for');
  await page.click('tbody a');
  await shows(page, '.problem', 'nightbus keeps trying');
  await page.done();
});

test('thousands of queued requests stay readable, page by page', async () => {
  // Without test flights: of one template, all but a few would wait for a verdict.
  const stand = await stage({ settings: { ...PATIENT, FLIGHT__ENABLED: 'false' } });
  await stand.deferMany(3_000);
  const page = await browser.open(stand.admin);
  await until('the figure', async () => (await figure(page, 'Queued').textContent()) === '3,000');
  await page.click('#nav >> text=Requests');
  await shows(page, '[role=status]', 'The newest 50 of 3,000.');
  const rows = page.locator('tbody tr');
  assert.equal(await rows.count(), 50);
  await page.getByRole('button', { name: 'Show older requests' }).click();
  await until('a hundred rows', async () => (await rows.count()) === 100);
  await page.click('#nav >> text=Lanes');
  await shows(page, 'tbody tr', '3,000');
  await page.done();
});
