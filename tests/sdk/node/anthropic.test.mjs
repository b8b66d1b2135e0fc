// Marked Messages by Anthropic's SDK for TypeScript: they ride in a batch and are answered as if they had not.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';

import { DEFER, Stand, marker, message } from './harness.mjs';

const TOOL = { name: 'note', description: 'd', input_schema: { type: 'object', properties: { text: { type: 'string' } } } };

let stand;
before(async () => {
  stand = await Stand.start({ settings: { HOLD__HEARTBEAT: '1s' } });
});
after(() => stand?.stop());

test('the header defers', async () => {
  const word = marker();
  const call = stand.anthropic().messages.create(message(`say ${word}`), { headers: DEFER });
  const { data, response } = await call.withResponse();
  assert.equal(response.headers.get('x-nightbus-service'), 'batch');
  assert.equal(data.type, 'message');
  assert.ok(data.content[0].text.includes(word));
  assert.equal(await stand.executions(word), 1);
});

test('the base URL defers', async () => {
  const word = marker();
  const { response } = await stand.anthropic({ path: '/batch' }).messages.create(message(word)).withResponse();
  assert.equal(response.headers.get('x-nightbus-service'), 'batch');
  assert.equal(await stand.executions(word), 1);
});

test('a stream is put together by the SDK', async () => {
  const word = marker();
  const thinking = { type: 'enabled', budget_tokens: 1024 };
  const call = message(`say ${word}`, { thinking, max_tokens: 2048 });
  const answer = await stand.anthropic({ defer: true }).messages.stream(call).finalMessage();
  assert.deepEqual(answer.content.map((block) => block.type), ['thinking', 'text']);
  assert.ok(answer.content[1].text.includes(word) && answer.content[0].signature);
  assert.equal(answer.stop_reason, 'end_turn');
  assert.equal(await stand.executions(word), 1);
});

test('tools, whole and streamed', async () => {
  const call = message(`use the tool ${marker()}`, { tools: [TOOL] });
  const client = stand.anthropic({ defer: true });
  const whole = await client.messages.create(call);
  assert.equal(whole.stop_reason, 'tool_use');
  const streamed = await client.messages.stream(call).finalMessage();
  assert.deepEqual(streamed.content[0].input, whole.content[0].input);
});

test('errors are those of the live call', async () => {
  const client = stand.anthropic({ defer: true });
  await assert.rejects(client.messages.create(message('fail-400')), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.type, 'invalid_request_error');
    return true;
  });
  await assert.rejects(client.messages.stream(message('fail-400, streamed')).finalMessage(), Anthropic.APIError);
});

test('held beyond the time-out of the client', async () => {
  const own = await Stand.start({ batchSeconds: 6, settings: { HOLD__HEARTBEAT: '1s' } });
  try {
    const word = marker();
    const answer = await own.anthropic({ defer: true, timeout: 3_000 }).messages.create(message(word));
    assert.ok(answer.content[0].text.includes(word));
    assert.equal(await own.executions(word), 1);
  } finally {
    await own.stop();
  }
});
