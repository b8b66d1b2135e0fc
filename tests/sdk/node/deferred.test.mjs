// Marked calls by openai-node: they ride in a batch and are answered as if they had not.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import OpenAI from 'openai';

import { DEFER, MODEL, Stand, chat, marker, until } from './harness.mjs';

let stand;
before(async () => {
  stand = await Stand.start();
});
after(() => stand?.stop());

test('the header defers', async () => {
  const word = marker();
  const call = stand.client().chat.completions.create(chat(`say ${word}`), { headers: DEFER });
  const { data, response } = await call.withResponse();
  assert.equal(response.status, 200);
  assert.match(response.headers.get('x-nightbus-request-id'), /^req_[0-9a-f]{32}$/);
  assert.equal(response.headers.get('x-nightbus-state'), 'completed');
  assert.equal(response.headers.get('x-nightbus-service'), 'batch');
  assert.equal(data.object, 'chat.completion');
  assert.ok(data.choices[0].message.content.includes(word));
  assert.equal(await stand.executions(word), 1);
});

test('the base URL defers', async () => {
  const word = marker();
  const call = stand.client({ path: '/batch/v1' }).chat.completions.create(chat(word));
  const { data, response } = await call.withResponse();
  assert.equal(response.headers.get('x-nightbus-service'), 'batch');
  assert.ok(data.choices[0].message.content.includes(word));
  assert.equal(await stand.executions(word), 1);
});

test('the model suffix defers', async () => {
  const word = marker();
  const call = stand.client().chat.completions.create(chat(word, { model: `${MODEL}:batch` }));
  const { data, response } = await call.withResponse();
  assert.equal(response.headers.get('x-nightbus-service'), 'batch');
  assert.equal(data.model, MODEL);
  assert.equal(await stand.executions(word), 1);
});

test('the environment defers', async () => {
  const names = ['OPENAI_BASE_URL', 'OPENAI_CUSTOM_HEADERS'];
  const saved = names.map((name) => process.env[name]);
  [process.env.OPENAI_BASE_URL, process.env.OPENAI_CUSTOM_HEADERS] = [`${stand.url}/v1`, 'x-nightbus-defer: true'];
  try {
    const word = marker();
    const client = new OpenAI({ apiKey: 'sk-suite', maxRetries: 0 });
    const { data, response } = await client.chat.completions.create(chat(word)).withResponse();
    assert.equal(response.headers.get('x-nightbus-service'), 'batch');
    assert.ok(data.choices[0].message.content.includes(word));
  } finally {
    names.forEach((name, at) => {
      if (saved[at] === undefined) delete process.env[name];
      else process.env[name] = saved[at];
    });
  }
});

test('tools', async () => {
  const word = marker();
  const parameters = { type: 'object', properties: { word: { type: 'string' } }, required: ['word'] };
  const completion = await stand.client({ defer: true }).chat.completions.create(
    chat(word, {
      tools: [{ type: 'function', function: { name: 'look_up', parameters } }],
      tool_choice: { type: 'function', function: { name: 'look_up' } },
    }),
  );
  const [call] = completion.choices[0].message.tool_calls;
  assert.equal(call.function.name, 'look_up');
  assert.equal(typeof JSON.parse(call.function.arguments), 'object');
  assert.equal(await stand.executions(word), 1);
});

test('embeddings: base64 by default, decoded, equal to the live ones', async () => {
  const word = marker();
  const call = { model: 'text-embedding-3-small', input: word };
  const deferred = await stand.client({ defer: true }).embeddings.create(call);
  assert.equal(await stand.executions(word), 1);
  const live = await stand.client().embeddings.create(call);
  assert.equal(deferred.data[0].embedding.length, 1536);
  assert.ok(deferred.data[0].embedding.every((value) => typeof value === 'number' && Number.isFinite(value)));
  assert.deepEqual(deferred.data[0].embedding, live.data[0].embedding);
});

test('responses', async () => {
  const word = marker();
  const response = await stand.client({ defer: true }).responses.create({ model: MODEL, input: `say ${word}` });
  assert.equal(response.status, 'completed');
  assert.ok(response.output_text.includes(word));
  assert.equal(await stand.executions(word), 1);
});

test('moderations', async () => {
  const word = marker();
  const call = { model: 'omni-moderation-latest', input: word };
  const moderation = await stand.client({ defer: true }).moderations.create(call);
  assert.equal(moderation.results[0].flagged, false);
  assert.equal(await stand.executions(word), 1);
});

test('a marked stream is answered as a stream', async () => {
  const word = marker();
  const stream = await stand.client({ defer: true }).chat.completions.create(chat(`say ${word}`, { stream: true }));
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
  assert.ok(text.includes(word));
  assert.equal(await stand.executions(word), 1);
});

test('a line that the provider refuses raises its error', async () => {
  const bad = chat(`fail-400 ${marker()}`);
  const fail = (client) =>
    client.chat.completions.create(bad).then(
      () => assert.fail('it was answered'),
      (error) => error,
    );
  const live = await fail(stand.client());
  const deferred = await fail(stand.client({ defer: true }));
  assert.ok(deferred instanceof OpenAI.BadRequestError, String(deferred));
  assert.deepEqual(
    [deferred.status, deferred.code, deferred.type, deferred.param, deferred.message],
    [live.status, live.code, live.type, live.param, live.message],
  );
});

test('no model is a bad request', async () => {
  await assert.rejects(stand.client({ defer: true }).post('/chat/completions', { body: { messages: [] } }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.equal(error.code, 'invalid_request');
    assert.equal(error.type, 'nightbus_error');
    return true;
  });
});

test('respond-async: 202, then the result', async () => {
  const word = marker();
  const headers = { ...DEFER, Prefer: 'respond-async' };
  const response = await stand.client().chat.completions.create(chat(word), { headers }).asResponse();
  assert.equal(response.status, 202);
  const request = await response.json();
  assert.equal(request.object, 'nightbus.request');
  const location = response.headers.get('location');
  assert.equal(location, `/nightbus/v1/requests/${request.id}/result`);
  const answer = await until('the result', async () => {
    const answer = await stand.fetch(location);
    return answer.status === 202 ? null : answer;
  });
  assert.equal(answer.status, 200);
  assert.ok((await answer.json()).choices[0].message.content.includes(word));
  assert.equal(await stand.executions(word), 1);
});
