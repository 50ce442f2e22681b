/** Calls through the proxy that are a part of a trace: headers, and OpenAI's own client. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { running } from './running.js';

const ANSWER = {
  id: 'chatcmpl-1',
  object: 'chat.completion',
  created: 1,
  model: 'gpt-4o',
  choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'Hi' } }],
  usage: { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 },
};
const ASK = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };

/** Answer each call through the proxy, and keep its request. */
function proxied(server) {
  const calls = [];
  const answer = (request) => {
    server.script.push(answer);
    if (!request.path.startsWith('/api/proxy/')) return undefined;
    calls.push(request);
    return { body: ANSWER };
  };
  server.script.push(answer);
  return calls;
}

test('headers name the trace, the span that calls, and the session', async (t) => {
  const { tw } = await running(t, { project: 'shop' });
  assert.deepEqual(tw.headers(), { 'X-Traceway-Api-Key': 'tw_sk_test', 'X-Traceway-Project': 'shop' });
  const trace = tw.trace('turn', { sessionId: 'user_123:conv_456' });
  const span = trace.span('step');
  const expected = {
    'X-Traceway-Api-Key': 'tw_sk_test',
    'X-Traceway-Project': 'shop',
    'X-Traceway-Trace-Id': trace.id,
    'X-Traceway-Session-Id': 'user_123:conv_456',
  };
  assert.deepEqual(trace.headers(), expected);
  assert.deepEqual(tw.headers(span), { ...expected, 'X-Traceway-Parent-Span-Id': span.id });
  await trace.run(() => trace.span('other', (other) => {
    assert.equal(tw.headers()['X-Traceway-Parent-Span-Id'], other.id);
    assert.equal(trace.headers()['X-Traceway-Parent-Span-Id'], other.id);
    assert.equal(span.headers()['X-Traceway-Parent-Span-Id'], span.id);
  }));
});

test('a session id of any script comes through fetch as its UTF-8', async (t) => {
  const { server, tw } = await running(t);
  const calls = proxied(server);
  const headers = tw.trace('turn', { sessionId: '會話 é😀' }).headers();
  await fetch(`${server.url}/api/proxy/openai/v1/models`, { headers });
  assert.equal(Buffer.from(calls[0].headers['x-traceway-session-id'], 'latin1').toString(), '會話 é😀');
  // What no header can hold is left to the trace.
  assert.equal('X-Traceway-Session-Id' in tw.trace('turn', { sessionId: 'a\nb' }).headers(), false);
});

test('an OpenAI client calls through the proxy, each call in the span that makes it', async (t) => {
  const { server, tw } = await running(t);
  const calls = proxied(server);
  const client = new OpenAI({ apiKey: 'sk-own', maxRetries: 0, ...tw.openaiOptions() });
  let span;
  await tw.trace('turn', async (ctx) => {
    await client.chat.completions.create(ASK);
    await ctx.llmCall('answer', async (call) => {
      span = call;
      return client.chat.completions.create(ASK);
    }, { model: 'gpt-4o', provider: 'openai' });
  }, { sessionId: 's' });
  await client.chat.completions.create(ASK);
  await tw.flush();
  const trace = server.trace('turn');
  const seen = calls.map(({ path, headers }) => ({
    path,
    trace: headers['x-traceway-trace-id'],
    parent: headers['x-traceway-parent-span-id'],
    session: headers['x-traceway-session-id'],
    keys: [headers.authorization, headers['x-traceway-api-key']],
  }));
  const path = '/api/proxy/openai/v1/chat/completions';
  const keys = ['Bearer sk-own', 'tw_sk_test'];
  assert.deepEqual(seen, [
    { path, trace: trace.id, parent: undefined, session: 's', keys },
    { path, trace: trace.id, parent: span.id, session: 's', keys },
    { path, trace: undefined, parent: undefined, session: undefined, keys },
  ]);
  assert.equal(server.span('answer').kind.response_id, 'chatcmpl-1');
  assert.equal(server.span('answer').kind.input_tokens, 3);
});

test('an OpenAI client that was made for a span calls in that span', async (t) => {
  const { server, tw } = await running(t);
  const calls = proxied(server);
  const span = tw.trace('turn').span('step');
  const client = new OpenAI({ apiKey: 'sk-own', ...tw.openaiOptions(span, 'groq') });
  await client.chat.completions.create(ASK);
  assert.equal(calls[0].path, '/api/proxy/groq/v1/chat/completions');
  assert.equal(calls[0].headers['x-traceway-parent-span-id'], span.id);
});

test('a client calls with its own key alone, whatever another one has running', async (t) => {
  const { tw } = await running(t);
  const { tw: other } = await running(t, { apiKey: 'tw_sk_other' });
  await other.trace('turn', (ctx) => {
    assert.equal(tw.current, undefined);
    assert.deepEqual(tw.headers(), { 'X-Traceway-Api-Key': 'tw_sk_test' });
    assert.equal(tw.headers(ctx)['X-Traceway-Api-Key'], 'tw_sk_test');
    assert.equal(other.headers()['X-Traceway-Trace-Id'], ctx.id);
  });
});

test('nobody but the proxy gets our headers from the fetch of an OpenAI client', async (t) => {
  const { server, tw } = await running(t);
  const { fetch: asked } = tw.openaiOptions(tw.trace('turn'));
  server.script.push({ body: {} }, { body: {} });
  await asked(`${server.url}/elsewhere`, { headers: { a: 'b' } });
  const { headers } = server.requests.find((request) => request.path === '/elsewhere');
  assert.equal(headers.a, 'b');
  assert.deepEqual(Object.keys(headers).filter((name) => name.startsWith('x-traceway')), []);
});
