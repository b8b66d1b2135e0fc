// openai-node and Vercel's AI SDK: calls come in as JSON lines on standard input, outcomes go out as JSON lines, as in
// protocol.py. All calls run at the same time.

import { createInterface } from 'node:readline';

import { createOpenAI } from '@ai-sdk/openai';
import { generateText, jsonSchema, streamText, tool } from 'ai';
import OpenAI from 'openai';

const answer = (id, message, finish, usage) => ({ ok: true, id, message, finish, usage });

// --- openai-node ---

function create(call, client, options) {
  const body = { ...call.body };
  if (call.stream) {
    body.stream = true;
    if (call.kind !== 'responses') body.stream_options = { include_usage: true };
  }
  const resource = { chat: client.chat.completions, completions: client.completions, responses: client.responses };
  return resource[call.kind].create(body, options);
}

const BODIES = {
  chat: (made) =>
    answer(made.id, made.choices.map(({ message }) => said(message)), made.choices.map(ending), made.usage),
  completions: (made) => answer(made.id, made.choices.map(({ text }) => text), made.choices.map(ending), made.usage),
  responses: (made) => answer(made.id, made.output, made.status, made.usage),
};

const ending = (choice) => choice.finish_reason;
const said = (message) => ({
  content: message.content ?? null,
  refusal: message.refusal ?? null,
  tools: (message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]),
});

const STREAMS = {
  chat(chunks) {
    const choices = [];
    for (const part of chunks.flatMap((chunk) => chunk.choices)) {
      const choice = (choices[part.index] ??= { content: null, refusal: null, tool_calls: [], finish_reason: null });
      for (const name of ['content', 'refusal']) {
        if (part.delta[name] != null) choice[name] = (choice[name] ?? '') + part.delta[name];
      }
      for (const { index, function: called } of part.delta.tool_calls ?? []) {
        const known = (choice.tool_calls[index] ??= { function: { name: '', arguments: '' } }).function;
        known.name += called.name ?? '';
        known.arguments += called.arguments ?? '';
      }
      choice.finish_reason = part.finish_reason ?? choice.finish_reason;
    }
    return answer(chunks[0].id, choices.map(said), choices.map(ending), chunks.at(-1).usage);
  },
  completions(chunks) {
    const choices = [];
    for (const part of chunks.flatMap((chunk) => chunk.choices)) {
      const choice = (choices[part.index] ??= { text: '', finish_reason: null });
      choice.text += part.text;
      choice.finish_reason = part.finish_reason ?? choice.finish_reason;
    }
    return answer(chunks[0].id, choices.map(({ text }) => text), choices.map(ending), chunks.at(-1).usage);
  },
  responses(events) {
    const last = events.at(-1);
    if (last.type === 'response.failed') throw Object.assign(new Error(last.response.error.message), last.response.error);
    const items = events.filter(({ type }) => type === 'response.output_item.done').map(({ item }) => item);
    return answer(last.response.id, items, last.response.status, last.response.usage);
  },
};

async function openai(call, client, options = {}) {
  const made = await create(call, client, options);
  if (!call.stream) return BODIES[call.kind](made);
  const events = [];
  for await (const event of made) events.push(event);
  return STREAMS[call.kind](events);
}

const common = (call) => ({ baseURL: call.base_url, apiKey: call.key, defaultHeaders: call.headers });
const milliseconds = (call) => Math.round(call.timeout * 1000);

// --- Vercel's AI SDK ---

async function vercel(call, api) {
  const provider = createOpenAI({ baseURL: call.base_url, apiKey: call.key, headers: call.headers });
  const asked = {
    model: provider[api](call.body.model),
    prompt: call.body.messages.at(-1).content,
    abortSignal: AbortSignal.timeout(milliseconds(call)),
  };
  if (call.body.tools) {
    asked.toolChoice = 'required';
    asked.tools = Object.fromEntries(
      call.body.tools.map(({ function: { name, parameters } }) => [name, tool({ inputSchema: jsonSchema(parameters) })]),
    );
  }
  if (!call.stream) return vercelAnswer(await generateText(asked));
  let problem;
  const result = streamText({ ...asked, onError: ({ error }) => (problem = error) });
  for await (const part of result.fullStream) {
    if (part.type === 'error') problem = part.error;
    if (part.type === 'abort') problem = new Error('aborted');
  }
  if (problem) throw problem;
  const names = ['text', 'toolCalls', 'finishReason', 'usage', 'response'];
  const values = await Promise.all(names.map((name) => result[name]));
  return vercelAnswer(Object.fromEntries(names.map((name, at) => [name, values[at]])));
}

const vercelAnswer = ({ text, toolCalls, finishReason, usage, response }) =>
  answer(
    response.id,
    [{ content: text, refusal: null, tools: toolCalls.map(({ toolName, input }) => [toolName, input]) }],
    finishReason,
    { input: usage.inputTokens, output: usage.outputTokens },
  );

// --- the loop ---

const CLIENTS = {
  // The time-out of the client is not announced to the server, that of one call is.
  'openai-client': (call) => openai(call, new OpenAI({ ...common(call), timeout: milliseconds(call) })),
  'openai-call': (call) => openai(call, new OpenAI(common(call)), { timeout: milliseconds(call) }),
  'vercel-chat': (call) => vercel(call, 'chat'),
  'vercel-responses': (call) => vercel(call, 'responses'),
};

const CODES = ['context_length_exceeded', 'queue_full', 'shutting_down', 'idempotency_mismatch'];

function failure(error) {
  // The AI SDK's RetryError holds what happened in the end.
  const last = error?.lastError ?? error;
  const text = [error?.message, last?.responseBody, last?.data && JSON.stringify(last.data), JSON.stringify(last)].join(' ');
  return {
    ok: false,
    type: last?.constructor?.name ?? typeof error,
    status: last?.status ?? last?.statusCode ?? null,
    code: last?.code ?? CODES.find((code) => text.includes(code)) ?? null,
    text: text.slice(0, 400),
  };
}

process.stdout.write('{"ready":true}\n');
for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line);
  CLIENTS[call.client](call)
    .catch(failure)
    .then((outcome) => process.stdout.write(`${JSON.stringify({ call: call.call, ...outcome })}\n`));
}
process.exit(0);
