import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Traceway, TracewayError } from 'traceway';

import { running } from './running.js';

test('traces and spans are created and ended by requests that wait for the server', async (t) => {
  const { server, tw } = await running(t);
  const trace = await tw.createTrace('turn', { sessionId: 's', userId: 'u', tags: ['a'], startedAt: new Date(0) });
  assert.deepEqual(trace, { id: trace.id, session_id: 's', status: 'running', created: true });
  assert.equal(server.traces.get(trace.id).started_at, '1970-01-01T00:00:00.000000Z');
  const again = await tw.createTrace('turn', { id: trace.id });
  assert.equal(again.created, false);
  const span = await tw.startSpan('call', {
    traceId: trace.id,
    kind: { type: 'llm_call', model: 'm' },
    input: 10n,
  });
  assert.deepEqual(span, { id: span.id, trace_id: trace.id, status: 'running', created: true });
  const ended = await tw.completeSpan(span.id, { output: 'o', kind: { inputTokens: 3 }, durationMs: 5 });
  assert.deepEqual(ended, { id: span.id, trace_id: trace.id, status: 'completed' });
  const { input, output, kind, duration_ms } = server.spans.get(span.id);
  assert.deepEqual([input, output, kind, duration_ms], ['10', 'o', { type: 'llm_call', input_tokens: 3 }, 5]);
  const child = await tw.startSpan('tool', { traceId: trace.id, parentId: span.id });
  assert.equal((await tw.failSpan(child.id, new Error('no'))).status, 'failed');
  assert.equal(server.spans.get(child.id).error, 'Error: no');
  assert.deepEqual(await tw.endTrace(trace.id), { id: trace.id, status: 'completed' });
  assert.equal((await tw.completeSpan('00000000000000aa')).status, 'waiting');
});

test('what the server refuses is a TracewayError with its words', async (t) => {
  const { server, tw } = await running(t);
  const span = await tw.startSpan('step');
  await tw.completeSpan(span.id);
  await assert.rejects(tw.completeSpan(span.id), (error) => {
    assert.ok(error instanceof TracewayError && error instanceof Error);
    assert.deepEqual([error.name, error.status, error.code, error.retryable], ['TracewayError', 409, 'already_ended', false]);
    return true;
  });
  server.script.push({ status: 403, body: { error: { message: 'not so', code: 'forbidden' } } });
  await assert.rejects(tw.getSessions(), /not so\. A write key hands in and reads nothing/);
  server.script.push({ status: 500, body: '' }, { status: 500, body: '<html>' }, { status: 500, body: '' });
  await assert.rejects(tw.getTrace('x'), { status: 500, code: 'http_500', retryable: true });
});

test('a request is made again where that may help, and an end whose answer was lost is no error', async (t) => {
  const { server, tw } = await running(t);
  const retry = { status: 503, headers: { 'Retry-After': '0' }, body: { error: { message: 'm', code: 'stopping' } } };
  server.script.push(retry);
  const span = await tw.startSpan('step');
  assert.equal(server.requests.length, 2);
  assert.equal(server.requests[0].body, server.requests[1].body);
  server.script.push((request) => { server.ended.add(request.path.split('/')[3]); return retry; });
  assert.deepEqual(await tw.completeSpan(span.id), { id: span.id, trace_id: null, status: 'completed' });
});

test('a server that is silent is a timeout', async (t) => {
  const { server, tw } = await running(t, { timeoutMs: 20 });
  server.script.push('silence', 'silence', 'silence');
  await assert.rejects(tw.getSessions(), { code: 'timeout', status: null, retryable: true });
});

test('reads ask for what they are told', async (t) => {
  const { server, tw } = await running(t, { project: 'shop' });
  const asked = async (call, body) => {
    server.script.push({ body });
    assert.deepEqual(await call, body);
    const { method, path, query, headers } = server.requests.at(-1);
    assert.equal(method, 'GET');
    assert.deepEqual([headers.authorization, headers['x-traceway-project']], ['Bearer tw_sk_test', 'shop']);
    return [path, Object.fromEntries(query)];
  };
  assert.deepEqual(await asked(tw.getSessions({ q: 'cost:>0.5', sortBy: 'cost', sortOrder: 'asc', limit: 2, cursor: 'c' }), { sessions: [], count: 0 }), [
    '/api/sessions',
    { q: 'cost:>0.5', sort_by: 'cost', sort_order: 'asc', limit: '2', cursor: 'c' },
  ]);
  assert.deepEqual(await asked(tw.getSession('user/1 %'), { id: 'user/1 %' }), ['/api/sessions/user%2F1%20%25', {}]);
  assert.deepEqual(await asked(tw.getSession('..'), {}), ['/api/sessions/by-id', { id: '..' }]);
  assert.deepEqual(await asked(tw.getTraces({ sessionId: 's', id: ['a', 'b'] }), {}), ['/api/traces', { session_id: 's', id: 'a,b' }]);
  assert.deepEqual(await asked(tw.getTrace('abc'), {}), ['/api/traces/abc', {}]);
  assert.deepEqual(await asked(tw.getTrace('abc', { limit: 2, cursor: 'c' }), {}), ['/api/traces/abc', { limit: '2', cursor: 'c' }]);
  assert.deepEqual(await asked(tw.getSpan('abc'), {}), ['/api/spans/abc', {}]);
  const filters = {
    model: 'm', provider: 'p', status: 'failed', kind: 'tool_call', since: '24h', until: new Date(0), nameContains: 'n',
    textContains: 't', durationMin: 1, durationMax: 2, tokensMin: 3, costMin: 0.5, traceId: 'x', sessionId: 's',
    sortBy: 'cost', sortOrder: 'desc', limit: 10, cursor: 'c',
  };
  assert.deepEqual(await asked(tw.getSpans(filters), {}), ['/api/spans', {
    model: 'm', provider: 'p', status: 'failed', kind: 'tool_call', since: '24h', until: '1970-01-01T00:00:00.000000Z',
    name_contains: 'n', text_contains: 't', duration_min: '1', duration_max: '2', tokens_min: '3', cost_min: '0.5',
    trace_id: 'x', session_id: 's', sort_by: 'cost', sort_order: 'desc', limit: '10', cursor: 'c',
  }]);
});

test('an address may have a path, and what is none is said at once', async (t) => {
  const { server, tw } = await running(t);
  assert.equal(new Traceway({ url: `${server.url}/tools/traceway/` }).url, `${server.url}/tools/traceway`);
  assert.equal(tw.url, server.url);
  assert.throws(() => new Traceway({ url: 'nowhere' }), TypeError);
  assert.throws(() => new Traceway({ url: 'ftp://a' }), TypeError);
  assert.throws(() => new Traceway({ url: server.url, apiKey: 'tw_sk_\n x' }), TypeError);
  new Traceway({ url: server.url, apiKey: 'tw_sk_x\n' });
});

test('no key is in an error', async (t) => {
  const { server, tw } = await running(t);
  server.script.push('close', 'close', 'close');
  const error = await tw.getSessions().catch((thrown) => thrown);
  assert.equal(error.code, 'connection');
  assert.doesNotMatch(`${error.stack} ${JSON.stringify(error)} ${error.cause?.stack}`, /tw_sk_/);
});
