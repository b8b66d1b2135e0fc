// Unmarked calls by openai-node go through untouched; and many calls at once ride together.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { toFile } from 'openai';

import { MODEL, Stand, chat, marker, until } from './harness.mjs';

const CALLS = 200;

let stand;
before(async () => {
  stand = await Stand.start({ settings: { BATCHING__IDLE: '1s' } });
});
after(() => stand?.stop());

test('200 calls ride in at most 2 batches', async () => {
  const client = stand.client({ defer: true, timeout: 100_000 });
  const words = Array.from({ length: CALLS }, marker);
  const answers = await Promise.all(words.map((word) => client.chat.completions.create(chat(`say ${word}`))));
  answers.forEach((answer, at) => assert.ok(answer.choices[0].message.content.includes(words[at])));
  for (const word of words) assert.equal(await stand.executions(word), 1);
  const batches = await stand.batches();
  assert.ok(batches.length >= 1 && batches.length <= 2, `${batches.length} batches`);
});

test('an unmarked call', async () => {
  const word = marker();
  const { data, response } = await stand.client().chat.completions.create(chat(word)).withResponse();
  assert.deepEqual([...response.headers.keys()].filter((name) => name.startsWith('x-nightbus')), []);
  assert.ok(data.choices[0].message.content.includes(word));
  assert.equal(await stand.executions(word), 1);
});

test('an unmarked stream arrives in chunks', async () => {
  const word = marker();
  const text = `sim-chunk-ms=50 say ${word} and then some more, so that there is something to cut`;
  const call = stand.client().chat.completions.create(chat(text, { stream: true }));
  const response = await call.asResponse();
  assert.match(response.headers.get('content-type'), /^text\/event-stream/);
  let pieces = 0;
  for await (const piece of response.body) pieces += piece.length > 0;
  assert.ok(pieces > 1, 'the stream came in one piece: it was held back');
});

test('models', async () => {
  const page = await stand.client().models.list();
  assert.ok(page.data.some((model) => model.id === MODEL));
});

test("the user's own batch goes through", async () => {
  const word = marker();
  const client = stand.client();
  const line = { custom_id: 'one', method: 'POST', url: '/v1/chat/completions', body: chat(`say ${word}`) };
  const file = await client.files.create({
    purpose: 'batch',
    file: await toFile(Buffer.from(`${JSON.stringify(line)}\n`), 'in.jsonl'),
  });
  const batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
  });
  const done = await until('the batch is completed', async () => {
    const now = await client.batches.retrieve(batch.id);
    return now.status === 'completed' && now.output_file_id ? now : null;
  });
  const output = await (await client.files.content(done.output_file_id)).text();
  assert.ok(output.includes(word));
  assert.equal(await stand.executions(word), 1);
});

test('killed and started again, it goes on', async () => {
  const word = marker();
  const headers = { 'x-nightbus-defer': 'true', Prefer: 'respond-async' };
  const response = await stand.client().chat.completions.create(chat(word), { headers }).asResponse();
  assert.equal(response.status, 202);
  await stand.proxy.kill();
  await stand.serve();
  const answer = await until('the result', async () => {
    const answer = await stand.fetch(response.headers.get('location'));
    return answer.status === 202 ? null : answer;
  });
  assert.equal(answer.status, 200);
  assert.ok((await answer.text()).includes(word));
  assert.equal(await stand.executions(word), 1);
  assert.equal(await stand.proxy.terminate(), 0);
});
