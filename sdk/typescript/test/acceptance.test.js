/** The package against a real server. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { test } from 'node:test';

import OpenAI from 'openai';
import { Traceway } from 'traceway';

import { TracewayServer, missing } from './traceway.js';

// As the first document has it.
const SNIPPET = `
import { Traceway } from 'traceway';
const tw = new Traceway({ apiKey: 'tw_sk_...' });
const trace = tw.trace('chat-turn', {
sessionId: 'sess_abc123',
});
`;

const options = { skip: missing };

async function served(t, ...more) {
  const server = await TracewayServer.start(...more);
  t.after(() => server.stop());
  const admin = await server.key('admin');
  const errors = [];
  const tw = new Traceway({ url: server.url, apiKey: admin, flushDelayMs: 10, onError: (error) => errors.push(error) });
  t.after(() => tw.close(0));
  return { server, tw, admin, errors };
}

test('the lines of the first document: the trace is in its session, on the page, and told of live', options, async (t) => {
  const { server, tw, admin } = await served(t);
  const write = await server.key('write', admin);
  let told;
  const created = new Promise((resolve) => (told = resolve));
  await new Promise((resolve) => {
    tw.subscribe((event) => event.type === 'trace_created' && told(event), { sessionId: 'sess_abc123', onOpen: resolve });
  });
  const child = spawn(process.execPath, ['--input-type=module', '--eval', SNIPPET.replace('tw_sk_...', write)], {
    cwd: new URL('.', import.meta.url).pathname,
    env: { ...process.env, TRACEWAY_URL: server.url },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const event = await created;
  assert.equal(event.session_id, 'sess_abc123');
  assert.equal(event.trace.name, 'chat-turn');
  assert.equal(await new Promise((resolve) => child.on('close', resolve)), 0);
  const session = await tw.getSession('sess_abc123');
  assert.deepEqual(session.traces.map((trace) => [trace.id, trace.name, trace.status]), [[event.trace_id, 'chat-turn', 'running']]);
  assert.equal(session.trace_count, 1);
  const page = await fetch(`${server.url}/sessions/sess_abc123?view=traces`, { headers: { Authorization: `Bearer ${admin}` } });
  assert.ok((await page.text()).includes('chat-turn'));
});

test('a turn has its spans in their tree, with what they were given, and its figures are their sum', options, async (t) => {
  const { tw, errors } = await served(t);
  const session = '會話/1 %';
  await assert.rejects(tw.trace('turn', async (ctx) => {
    await ctx.span('search', async (span) => {
      span.setMetadata({ tenant: 'a' });
      await ctx.span('embed', () => [0.5], { kind: { type: 'embedding', model: 'text-embedding-3-small', inputTokens: 5 } });
      return ['doc'];
    }, { kind: { type: 'retrieval', index: 'docs' }, input: { query: 'q' } });
    await ctx.llmCall('answer', () => 'Hi', {
      model: 'gpt-4o-mini', provider: 'openai', inputTokens: 10, outputTokens: 2, cost: 0.5,
      input: [{ role: 'user', content: 'Hello' }],
    });
    await ctx.span('rank', (span) => span.set({ type: 'custom', kind: 'reranker', attributes: { top_k: 5 } }));
    throw new Error('no answer');
  }, { sessionId: session, userId: 'u', tags: ['beta'] }), /no answer/);
  assert.equal(await tw.flush(60_000), true);
  assert.deepEqual([tw.dropped, errors], [0, []]);
  const found = await tw.getSession(session);
  assert.deepEqual([found.id, found.trace_count, found.user_id, found.status], [session, 1, 'u', 'failed']);
  assert.deepEqual([found.input_tokens, found.output_tokens], [15, 2]);
  assert.ok(found.cost >= 0.5 && found.cost < 0.51);
  const trace = await tw.getTrace(found.traces[0].id);
  const names = Object.fromEntries(trace.spans.map((span) => [span.name, span]));
  assert.deepEqual(Object.keys(names).sort(), ['answer', 'embed', 'rank', 'search', 'turn']);
  assert.equal(names.embed.parent_id, names.search.id);
  assert.equal(names.search.parent_id, null);
  assert.equal(names.turn.status.failed.error, 'Error: no answer');
  assert.deepEqual(['search', 'answer', 'rank'].map((name) => [names[name].kind.type, names[name].status]), [
    ['retrieval', 'completed'], ['llm_call', 'completed'], ['custom', 'completed'],
  ]);
  const search = await tw.getSpan(names.search.id);
  assert.deepEqual([search.input, search.output], [{ query: 'q' }, ['doc']]);
});

test('requests are answered as their types say', options, async (t) => {
  const { tw } = await served(t);
  const trace = await tw.createTrace('import', { sessionId: 's' });
  assert.deepEqual(trace, { id: trace.id, session_id: 's', status: 'running', created: true });
  assert.equal((await tw.createTrace('import', { id: trace.id })).created, false);
  const span = await tw.startSpan('read', { traceId: trace.id, kind: { type: 'fs_read', path: 'a' } });
  assert.deepEqual(span, { id: span.id, trace_id: trace.id, status: 'running', created: true });
  assert.deepEqual(await tw.completeSpan(span.id, { output: 'text' }), { id: span.id, trace_id: trace.id, status: 'completed' });
  await assert.rejects(tw.completeSpan(span.id), { status: 409, code: 'already_ended' });
  const other = await tw.startSpan('write', { traceId: trace.id, parentId: span.id });
  assert.equal((await tw.failSpan(other.id, new Error('full'))).status, 'failed');
  assert.equal((await tw.endTrace(trace.id)).id, trace.id);
  assert.equal((await tw.completeSpan('00000000000000aa')).status, 'waiting');
  const alone = await tw.startSpan('alone', { sessionId: 's' });
  assert.equal((await tw.getTrace(alone.trace_id)).session_id, 's');
  assert.equal((await tw.getSessions({ q: 'session:s' })).sessions[0].trace_count, 2);
  assert.equal((await tw.getTraces({ sessionId: 's', limit: 1 })).count, 1);
  assert.equal((await tw.getSpans({ q: 'session:s' })).count, 3);
  await assert.rejects(tw.getTrace('0'.repeat(32)), { status: 404, code: 'not_found' });
  await assert.rejects(tw.getSessions({ limit: 0 }), { status: 400, param: 'limit' });
});

test('a write key hands in, and is told that it reads nothing', options, async (t) => {
  const { server, tw, admin } = await served(t);
  const writer = new Traceway({ url: server.url, apiKey: await server.key('write', admin) });
  await writer.trace('turn', () => 1, { sessionId: 's' });
  assert.equal(await writer.flush(60_000), true);
  assert.equal((await tw.getSession('s')).trace_count, 1);
  await assert.rejects(writer.getSessions(), { status: 403, code: 'forbidden' });
  const reader = new Traceway({ url: server.url, apiKey: await server.key('read', admin), onError: () => {} });
  reader.trace('turn');
  assert.equal(await reader.flush(60_000), true);
  assert.equal(reader.dropped, 1);
});

test('what a span cannot hold in JSON is told in words, and costs nothing else', options, async (t) => {
  const { tw, errors } = await served(t);
  const circle = { a: 1n, lone: '\ud800', nul: 'a\0b' };
  circle.self = circle;
  await tw.trace('turn', (ctx) => ctx.span('step', () => new Map([['k', new Error('e')]]), {
    input: circle, metadata: circle, kind: { type: 'custom', kind: 'k', attributes: circle },
  }), { sessionId: 's', tags: ['x'.repeat(200)], userId: 'u'.repeat(2000) });
  assert.equal(await tw.flush(60_000), true);
  assert.deepEqual([tw.dropped, errors], [0, []]);
  const { traces } = await tw.getSession('s');
  const span = await tw.getSpan((await tw.getTrace(traces[0].id)).spans[0].id);
  assert.deepEqual(span.input, { a: '1', lone: '\ufffd', nul: 'a\0b', self: '[circular]' });
  assert.equal(span.output.k.message, 'e');
});

test('a server that is restarted while spans come loses none and tells each event once', options, async (t) => {
  const { server, tw } = await served(t);
  const seen = [];
  let told;
  const allTold = new Promise((resolve) => (told = resolve));
  const see = (event) => event.type === 'span_completed' && seen.push(event.span_id) === 1500 && told();
  await new Promise((resolve) => tw.subscribe(see, { onOpen: resolve }));
  const trace = tw.trace('turn', { sessionId: 's' });
  const made = [];
  const more = (count) => {
    for (let i = 0; i < count; i++) {
      const span = trace.span('step');
      made.push(span.id);
      span.end();
    }
  };
  more(300);
  assert.equal(await tw.flush(60_000), true);
  more(300);
  const paused = server.pause();
  more(300);
  await paused;
  more(300);
  await server.resume();
  more(300);
  assert.equal(await tw.flush(60_000), true);
  assert.equal(tw.dropped, 0);
  assert.equal((await tw.getSession('s')).span_count, 1500);
  await allTold;
  assert.deepEqual([...seen].sort(), made.sort());
});

test('spans are found by what is documented of them', options, async (t) => {
  const { tw } = await served(t);
  if (!(await describes(tw, '"name_contains"'))) return t.skip('this server has no filters of spans');
  const since = new Date(Date.now() - 60_000);
  const trace = tw.trace('turn', { sessionId: 's' });
  trace.llmCall('Answer', { model: 'gpt-4o-mini', provider: 'openai', inputTokens: 700, outputTokens: 1, cost: 0.75, input: 'Where is my order?' }).end();
  trace.llmCall('answer too', { model: 'gpt-4o', provider: 'openai', inputTokens: 5, startedAt: new Date(Date.now() - 5000) }).end();
  trace.span('search', { kind: 'retrieval' }).fail(new Error('no index'));
  trace.span('rank', { kind: { type: 'custom', kind: 'reranker' } }).end();
  assert.equal(await tw.flush(60_000), true);
  const names = async (query) => (await tw.getSpans({ sessionId: 's', ...query })).spans.map((span) => span.name).sort();
  assert.deepEqual(await names({}), ['Answer', 'answer too', 'rank', 'search']);
  assert.deepEqual(await names({ traceId: trace.id, kind: 'llm_call' }), ['Answer', 'answer too']);
  assert.deepEqual(await names({ kind: 'reranker' }), ['rank']);
  assert.deepEqual(await names({ model: 'gpt-4o', provider: 'openai' }), ['answer too']);
  assert.deepEqual(await names({ status: 'failed' }), ['search']);
  assert.deepEqual(await names({ nameContains: 'ANSWER' }), ['Answer', 'answer too']);
  assert.deepEqual(await names({ textContains: 'my order' }), ['Answer']);
  assert.deepEqual(await names({ durationMin: 4000 }), ['answer too']);
  assert.deepEqual(await names({ durationMax: 4000, tokensMin: 100 }), ['Answer']);
  assert.deepEqual(await names({ costMin: 0.5 }), ['Answer']);
  assert.deepEqual(await names({ since, until: new Date(Date.now() + 60_000) }), await names({}));
  assert.deepEqual(await names({ until: since }), []);
  const first = await tw.getSpans({ sessionId: 's', since: '1h', sortBy: 'duration', limit: 1 });
  assert.equal(first.spans[0].name, 'answer too');
  const rest = await tw.getSpans({ sessionId: 's', since: '1h', sortBy: 'duration', limit: 10, cursor: first.cursor });
  assert.equal(rest.count, 3);
});

test('a call of OpenAI\'s client is in the span that made it, and counts once', options, async (t) => {
  const upstream = createServer((request, response) => {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    request.resume().on('end', () => response.end(JSON.stringify(COMPLETION)));
  });
  await new Promise((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  t.after(() => upstream.close());
  const { server, tw, errors } = await served(t, '--upstream', `openai=http://127.0.0.1:${upstream.address().port}`);
  if (!(await describes(tw, '"X-Traceway-Parent-Span-Id"'))) return t.skip('this server joins no calls');
  const openai = new OpenAI({ apiKey: 'sk-own', maxRetries: 0, ...tw.openaiOptions() });
  const ask = () => openai.chat.completions.create({ model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'Hi' }] });
  await tw.trace('turn', async (ctx) => {
    await ctx.span('search', () => ['doc'], { kind: 'retrieval' });
    await ctx.llmCall('told', ask, { provider: 'openai' });
    await ctx.span('tool', ask, { kind: { type: 'tool_call', tool: 'ask' } });
  }, { sessionId: '會話' });
  assert.equal(await tw.flush(60_000), true);
  assert.deepEqual([tw.dropped, errors], [0, []]);
  const page = async () => {
    const { traces, input_tokens, output_tokens, span_count } = await tw.getSession('會話');
    return { traces, sums: [input_tokens, output_tokens, span_count] };
  };
  const { traces, sums } = await page();
  assert.equal(traces.length, 1);
  assert.deepEqual(sums, [20, 4, 5]);
  const { spans } = await tw.getTrace(traces[0].id);
  const told = spans.find((span) => span.name === 'told');
  const tool = spans.find((span) => span.name === 'tool');
  const calls = spans.filter((span) => span.metadata.upstream === 'openai');
  assert.deepEqual(calls.map((span) => span.parent_id), [told.id, tool.id]);
  assert.equal(told.metadata.same_call, calls[0].id);
  assert.equal(server.log.includes('Traceback'), false);
});

const COMPLETION = {
  id: 'chatcmpl-1',
  object: 'chat.completion',
  created: 1,
  model: 'gpt-4o-mini-2024-07-18',
  choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'Hello' } }],
  usage: { prompt_tokens: 10, completion_tokens: 2, total_tokens: 12 },
};

/** Whether the server's own description names something. */
async function describes(tw, text) {
  const response = await fetch(`${tw.url}/api/openapi.json`, { headers: { Authorization: `Bearer ${tw.headers()['X-Traceway-Api-Key']}` } });
  return (await response.text()).includes(text);
}
