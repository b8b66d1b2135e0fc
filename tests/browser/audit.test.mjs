// The page of `nightbus audit --html` in a real Chromium, in light and dark: charts are drawn, nothing is loaded, nothing
// is refused by its own policy, nothing is on the console. NIGHTBUS_SHOTS=FOLDER keeps screenshots to look at.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { chromium } from 'playwright-core';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const BINARY =
  process.env.NIGHTBUS_BIN || path.join(process.env.CARGO_TARGET_DIR || path.join(ROOT, 'target'), 'release', 'nightbus');
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking'];
const EVIL = '"><script>document.title = "taken over"</script>';

let folder;
let browser;
let report;

/** Two weeks of an invented company: a nightly job, a chat, an hourly report, a crawler nobody has named. */
function* log() {
  const start = Date.parse('2026-11-02T00:00:00Z');
  const line = (at, model, tag, input, output, more = {}) =>
    JSON.stringify({
      timestamp: new Date(at).toISOString(),
      tag,
      request: { model, messages: [{ role: 'system', content: `You are ${tag}.` }], ...more },
      response: { model, usage: { prompt_tokens: input, completion_tokens: output, total_tokens: input + output } },
    });
  for (let hour = 0; hour < 14 * 24; hour += 1) {
    const at = start + hour * 3_600_000;
    const ofDay = hour % 24;
    if (ofDay === 2) for (let call = 0; call < 200; call += 1) yield line(at + call * 1000, 'gpt-5.4', 'nightly-eval', 60_000, 4_000);
    for (let call = 0; call < Math.max(0, 12 - Math.abs(ofDay - 14) * 2); call += 1) {
      yield line(at + call * 60_000, 'gpt-5.4-mini', 'support-chat', 90_000, 6_000, { stream: true });
    }
    yield line(at, 'claude-haiku-4-5', 'hourly-report', 400_000, 20_000);
    yield line(at, 'gpt-5.4-mini', 'lookup', 50_000, 1_000, { stream: hour % 3 === 0 });
    yield line(at, `house-model ${EVIL}`, EVIL, 1_000, 1_000);
  }
  yield 'not a line of anything';
}

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'nightbus-audit-'));
  const file = path.join(folder, 'calls.jsonl');
  await writeFile(file, [...log()].join('\n'));
  report = path.join(folder, 'report.html');
  const done = spawnSync(BINARY, ['audit', file, '--html', report, '--json'], { encoding: 'utf8', maxBuffer: 1 << 28 });
  assert.equal(done.status, 0, done.stderr);
  browser = await chromium.launchPersistentContext(path.join(folder, 'profile'), {
    executablePath: process.env.NIGHTBUS_CHROMIUM || '/usr/bin/chromium',
    args: FLAGS,
  });
});

after(async () => {
  await browser?.close();
  if (folder) await rm(folder, { recursive: true, force: true });
});

/** The page, watched from its first byte. */
async function open(colorScheme, viewport = { width: 1200, height: 900 }) {
  const page = await browser.newPage();
  const trouble = [];
  const asked = [];
  page.on('pageerror', (error) => trouble.push(error.message));
  page.on('console', (message) => trouble.push(`${message.type()}: ${message.text()}`));
  page.on('request', (request) => asked.push(request.url()));
  await page.setViewportSize(viewport);
  await page.emulateMedia({ colorScheme });
  await page.goto(pathToFileURL(report).href);
  if (process.env.NIGHTBUS_SHOTS) {
    await page.screenshot({ path: path.join(process.env.NIGHTBUS_SHOTS, `audit-${colorScheme}-${viewport.width}.png`), fullPage: true });
  }
  return { page, trouble, asked };
}

for (const scheme of ['light', 'dark']) {
  test(`charts are drawn, ${scheme}`, async () => {
    const { page, trouble, asked } = await open(scheme);
    const charts = await page.locator('svg.chart').evaluateAll((all) =>
      all.map((svg) => ({
        width: svg.getBoundingClientRect().width,
        shapes: [...svg.querySelectorAll('rect')].filter((rect) => rect.getBoundingClientRect().height > 0.1).length,
        colours: new Set([...svg.querySelectorAll('rect')].map((rect) => getComputedStyle(rect).fill)).size,
      })),
    );
    assert.equal(charts.length, 4, 'over time, by hour of the day, share, savings');
    assert.ok(charts.every((chart) => chart.width > 600 && chart.shapes > 1 && chart.colours > 1), JSON.stringify(charts));
    assert.ok(charts[0].shapes > 90, `bars over time: ${charts[0].shapes}`);
    const [ink, paper] = await page.evaluate(() => [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]);
    const light = (colour) => colour.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) > 382;
    assert.equal(light(paper), scheme === 'light');
    assert.equal(light(ink), scheme === 'dark');
    assert.deepEqual(trouble, []);
    assert.deepEqual(asked.filter((url) => !url.startsWith('data:')), [pathToFileURL(report).href], 'the page needs nothing else');
    await page.close();
  });
}

test('verdicts follow the golden rules', async () => {
  const { page } = await open('light');
  const row = (label) => page.locator('tr', { hasText: label }).first().innerText();
  assert.match(await row('nightly-eval'), /could wait[\s\S]*defer now/);
  assert.match(await row('support-chat'), /somebody waits[\s\S]*keep live/);
  assert.match(await row('hourly-report'), /could wait/);
  assert.match(await row('house-model'), /perhaps[\s\S]*ask whether/, 'weak signs alone');
  await page.close();
});

test('a log cannot put markup into the page', async () => {
  const { page } = await open('light');
  assert.equal(await page.title(), 'nightbus audit');
  assert.equal(await page.locator('script').count(), 0);
  assert.ok((await page.locator('body').innerText()).includes(EVIL));
  await page.close();
});

test('a narrow screen scrolls tables, not the page', async () => {
  const { page, trouble } = await open('dark', { width: 420, height: 800 });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 1, `the page is ${overflow} px too wide`);
  assert.deepEqual(trouble, []);
  await page.close();
});
