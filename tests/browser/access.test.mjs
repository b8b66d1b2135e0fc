// Who can use the dashboard, and on what: by keyboard, with a screen reader, on a phone, in the dark, with a token.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, afterEach, before, test } from 'node:test';

import { Browser, Stand, shows, until } from './harness.mjs';

const VIEWS = ['', 'savings', 'batches', 'requests', 'lanes', 'faults'];
const PHONE = { width: 360, height: 740 };
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core'), 'utf8');

let browser;
let stand;
let secret;
before(async () => {
  browser = await Browser.start();
  stand = await Stand.start({ batchSeconds: 1, faults: ['validation-all-bad:1'] });
  secret = await Stand.start({ settings: { ADMIN__TOKEN: 'open-sesame' } });
  // Some of everything: a failed batch, finished ones, and one under way.
  await stand.deferMany(5, { tag: 'spoiled' });
  await until('the spoiled ones have ended', async () => (await counts()).submitted + (await counts()).queued === 0);
  await stand.deferMany(12, { tag: 'a-rather-long-name-of-a-nightly-evaluation-of-everything' });
  await until('the others have ended', async () => (await counts()).submitted + (await counts()).queued === 0);
  await fetch(`${stand.simulatorUrl}/sim/settings`, { method: 'POST', body: '{"batch_seconds":600}' });
  await stand.deferMany(4, { tag: 'under-way' });
});
afterEach(() => browser?.sweep());
after(async () => {
  await browser?.stop();
  await Promise.all([stand?.stop(), secret?.stop()]);
});

const counts = async () => (await stand.api('/api/status')).requests;

/** All views, and one batch and one request. */
async function places() {
  const [batch] = (await stand.api('/api/batches?limit=1')).data;
  const [request] = (await stand.api('/api/requests?limit=1')).data;
  return [...VIEWS, `batches/${batch.id}`, `requests/${request.id}`];
}

const drawn = (page) => page.locator('main > [aria-busy]').waitFor({ state: 'detached' });

for (const colorScheme of ['light', 'dark']) {
  test(`nothing that axe finds stands in the way, ${colorScheme}`, async () => {
    for (const place of await places()) {
      const page = await browser.open(`${stand.admin}/#/${place}`, { colorScheme });
      await shows(page, '#pulse', 'Live');
      await drawn(page);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
      const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).slice(0, 3).join(' ')}`);
      assert.deepEqual(found, [], `#/${place}`);
      await page.done();
    }
  });
}

test('a phone scrolls in one direction only', async () => {
  for (const place of await places()) {
    const page = await browser.open(`${stand.admin}/#/${place}`, { viewport: PHONE });
    await shows(page, '#pulse', 'Live');
    await drawn(page);
    const [wide, shown] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= shown, `#/${place}: ${wide} px of ${shown}`);
    const cut = await page.evaluate(() =>
      [...document.querySelectorAll('main *')].filter((one) => one.checkVisibility() && !one.closest('.sr, thead, svg') && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 90)));
    assert.deepEqual(cut, [], `#/${place}`);
    await page.done();
  }
});

test('colours follow the system, and the choice wins and is kept', async () => {
  const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const page = await browser.open(stand.admin, { colorScheme: 'light' });
  const light = await ground(page);
  await page.emulateMedia({ colorScheme: 'dark' });
  const dark = await ground(page);
  assert.notEqual(dark, light);
  await page.getByRole('combobox', { name: 'Colours' }).selectOption('light');
  assert.equal(await ground(page), light);
  await page.reload();
  assert.equal(await ground(page), light);
  assert.equal(await page.getByRole('combobox', { name: 'Colours' }).inputValue(), 'light');
  await page.getByRole('combobox', { name: 'Colours' }).selectOption('');
  assert.equal(await ground(page), dark);
  await page.done();
});

test('everything is reached by keyboard, and focus is never lost', async () => {
  const page = await browser.open(stand.admin);
  await shows(page, '#pulse', 'Live');
  await drawn(page);
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'Skip to the content');
  assert.ok(await page.locator('#skip').evaluate((skip) => skip.getBoundingClientRect().top >= 0), 'it shows when focused');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'content');
  await page.locator('.brand').focus();
  const walked = [];
  for (let step = 0; step < 7; step += 1) {
    await page.keyboard.press('Tab');
    walked.push((await focused()).replace(/\d.*/s, ''));
  }
  assert.deepEqual(walked, ['Overview', 'Savings', 'Batches', 'Requests', 'Lanes', 'Flights', 'Faults']);
  for (let back = 0; back < 4; back += 1) await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Enter');
  await shows(page, 'h1', 'Batches');
  await until('a new view is read from its heading', async () => (await focused()) === 'Batches');
  assert.equal(await page.title(), 'Batches · nightbus');
  assert.equal(await page.locator('#nav [aria-current=page]').textContent(), 'Batches');
  // A dialog holds the focus, Escape leaves it, and the focus goes back.
  const cancel = page.getByRole('button', { name: /^Cancel batch/ }).first();
  await cancel.focus();
  await page.keyboard.press('Enter');
  await shows(page, 'dialog', 'Cancel this batch?');
  assert.equal(await focused(), 'Let it run');
  await page.keyboard.press('Escape');
  await page.locator('dialog').waitFor({ state: 'detached' });
  assert.equal(await focused(), 'Cancel');
  // What is read again does not take the focus away.
  await page.locator('tbody a').first().click();
  await page.getByRole('link', { name: 'Requests of this batch' }).focus();
  const age = () => page.locator('.facts div', { hasText: 'Age' }).locator('dd').textContent();
  const before = await age();
  await until('the age is drawn again', async () => (await age()) !== before);
  assert.equal(await focused(), 'Requests of this batch');
  await page.done();
});

test('the admin token is asked for, kept for the tab alone, and can be forgotten', async () => {
  const page = await browser.open(secret.admin, { expects: [/status of 401/] });
  await shows(page, 'dialog', 'asks for its admin token');
  await page.keyboard.press('Escape');
  await page.getByRole('textbox', { name: 'Admin token' }).fill('guess');
  await page.keyboard.press('Enter');
  await shows(page, 'dialog', 'That is not the token.');
  await page.getByRole('textbox', { name: 'Admin token' }).fill('open-sesame');
  await page.keyboard.press('Enter');
  await shows(page, '#pulse', 'Live');
  await shows(page, 'main', 'No call has been deferred yet');
  await page.reload();
  await shows(page, '#pulse', 'Live');
  assert.equal(await page.locator('dialog').count(), 0);
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage)).then((kept) => kept.includes('sesame')), false);
  const other = await browser.open(secret.admin, { expects: [/status of 401/] });
  await shows(other, 'dialog', 'asks for its admin token');
  await other.done();
  await page.getByRole('button', { name: 'Forget the admin token' }).click();
  await shows(page, 'dialog', 'asks for its admin token');
  await page.done();
});
