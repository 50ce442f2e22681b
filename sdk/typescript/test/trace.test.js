import assert from 'node:assert/strict';
import { test } from 'node:test';

import { running } from './running.js';

test('the lines of the first document open a trace of the session, unended and unflushed', async (t) => {
  const { server, tw } = await running(t);
  const trace = tw.trace('chat-turn', {
    sessionId: 'sess_abc123',
  });
  const taken = await server.until(() => server.trace('chat-turn'));
  assert.equal(taken.id, trace.id);
  assert.equal(taken.session_id, 'sess_abc123');
  assert.match(trace.id, /^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$/);
  assert.match(taken.started_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  assert.equal(server.batches[0].headers.authorization, 'Bearer tw_sk_test');
});

test('a trace with a callback gives what it gives, and ends', async (t) => {
  const { server, tw } = await running(t);
  const result = await tw.trace('chat-turn', async (ctx) => `in ${ctx.name}`, { sessionId: 's', tags: ['a', 'b'], userId: 'u' });
  assert.equal(result, 'in chat-turn');
  assert.equal(await tw.flush(), true);
  const trace = server.trace('chat-turn');
  assert.equal(trace.status, 'completed');
  assert.deepEqual(trace.tags, ['a', 'b']);
  assert.equal(trace.user_id, 'u');
  assert.ok(Date.parse(trace.ended_at) >= Date.parse(trace.started_at));
});

test('spans have the place, input, output, kind and duration that they were given', async (t) => {
  const { server, tw } = await running(t);
  await tw.trace('turn', async (ctx) => {
    const found = await ctx.span('search', async (span) => {
      span.setMetadata({ index: 'docs' });
      await span.span('embed', async () => [0.5], { kind: { type: 'embedding', model: 'e', inputTokens: 3 } });
      return ['a'];
    }, { kind: 'retrieval', input: { query: 'q' } });
    assert.deepEqual(found, ['a']);
    const tool = ctx.span('tool', { kind: { type: 'tool_call', tool: 'clock' } });
    tool.end({ output: 'noon' });
  });
  await tw.flush();
  const search = server.span('search');
  assert.equal(search.status, 'completed');
  assert.equal(search.parent_id, undefined);
  assert.equal(search.trace_id, server.trace('turn').id);
  assert.deepEqual(search.kind, { type: 'retrieval' });
  assert.deepEqual([search.input, search.output, search.metadata], [{ query: 'q' }, ['a'], { index: 'docs' }]);
  assert.ok(search.duration_ms > 0);
  const embed = server.span('embed');
  assert.equal(embed.parent_id, search.id);
  assert.deepEqual(embed.kind, { type: 'embedding', model: 'e', input_tokens: 3 });
  assert.deepEqual(server.span('tool').kind, { type: 'tool_call', tool: 'clock' });
  assert.equal(server.span('tool').output, 'noon');
});

test('a span that is over before it was sent is one item, and one that was sent is ended by another', async (t) => {
  const { server, tw } = await running(t);
  const trace = tw.trace('turn');
  trace.span('quick').end();
  const slow = trace.span('slow', { input: 1 });
  await tw.flush();
  slow.set({ model: 'm' }).end({ output: 2 });
  await tw.flush();
  assert.deepEqual(server.items.map((item) => [item.type, item.name]), [
    ['trace', 'turn'],
    ['span', 'quick'],
    ['span', 'slow'],
    ['complete', undefined],
  ]);
  const { status, output, kind } = server.span('slow');
  assert.deepEqual({ status, output, kind }, { status: 'completed', output: 2, kind: { type: 'custom', model: 'm' } });
});

test('input that comes to be known later is told, before the span was sent and after', async (t) => {
  const { server, tw } = await running(t);
  const trace = tw.trace('turn');
  const early = trace.span('early').setInput('a');
  const late = trace.span('late');
  await tw.flush();
  late.setInput('b');
  await tw.flush();
  assert.equal(server.span('early').input, 'a');
  assert.equal(server.span('late').input, 'b');
  early.end();
});

test('a callback that throws fails its spans once, ends the trace and throws the same', async (t) => {
  const { server, tw } = await running(t);
  const error = new RangeError('too far');
  await assert.rejects(
    tw.trace('turn', (ctx) => ctx.span('outer', (outer) => outer.span('inner', () => { throw error; }))),
    (thrown) => thrown === error,
  );
  await tw.flush();
  for (const name of ['inner', 'outer']) {
    assert.equal(server.span(name).status, 'failed');
    assert.equal(server.span(name).error, 'RangeError: too far');
  }
  assert.equal(server.spans.size, 2);
  assert.equal(server.trace('turn').status, 'completed'); // ended: its state is that of its spans
});

test('a failure that no span told of is told by one of the trace\'s own', async (t) => {
  const { server, tw } = await running(t);
  await assert.rejects(tw.trace('turn', async () => { throw 'no object'; }), (thrown) => thrown === 'no object');
  await tw.flush();
  assert.equal(server.span('turn').status, 'failed');
  assert.equal(server.span('turn').error, 'no object');
  assert.equal(server.trace('turn').status, 'completed');
});

test('in Node, what is opened through the trace is a part of the span that runs', async (t) => {
  const { server, tw } = await running(t);
  await tw.trace('turn', async (ctx) => {
    assert.equal(tw.current, ctx);
    await Promise.all(['a', 'b'].map((name) => ctx.span(name, async (span) => {
      await new Promise(setImmediate);
      assert.equal(tw.current, span);
      ctx.span(`in ${name}`).end();
      span.run(() => ctx.span(`run in ${name}`).end());
    })));
    ctx.span('after').end();
  });
  assert.equal(tw.current, undefined);
  const other = tw.trace('other');
  await tw.trace('third', async () => other.span('of other').end());
  await tw.flush();
  for (const name of ['a', 'b']) {
    assert.equal(server.span(name).parent_id, undefined);
    assert.equal(server.span(`in ${name}`).parent_id, server.span(name).id);
    assert.equal(server.span(`run in ${name}`).parent_id, server.span(name).id);
  }
  assert.equal(server.span('after').parent_id, undefined);
  assert.equal(server.span('of other').parent_id, undefined);
  assert.equal(server.span('of other').trace_id, other.id);
});

test('the first end of a span and of a trace is the end', async (t) => {
  const { server, tw } = await running(t);
  const trace = tw.trace('turn');
  const span = trace.span('step');
  span.fail(new Error('no'));
  span.end({ output: 1 });
  span.setOutput(2).setInput(3).set({ model: 'm' });
  trace.end();
  trace.end();
  trace.fail(new Error('late'));
  await tw.flush();
  assert.equal(server.span('step').status, 'failed');
  assert.equal(server.span('step').output, undefined);
  assert.deepEqual(server.items.map((item) => item.type), ['trace', 'span', 'end']);
});

test('what was given is what it was then, whatever becomes of it', async (t) => {
  const { server, tw } = await running(t);
  const messages = [{ role: 'user', content: 'Hi' }];
  const span = tw.trace('turn').llmCall('answer', { model: 'gpt-4o', provider: 'openai', input: messages });
  messages.push({ role: 'assistant', content: 'Hello' });
  await tw.flush();
  assert.deepEqual(server.span('answer').input, [{ role: 'user', content: 'Hi' }]);
  assert.deepEqual(server.span('answer').kind, { type: 'llm_call', model: 'gpt-4o', provider: 'openai' });
  span.end();
});

test('a model call reads model, tokens and id out of the answer of OpenAI\'s and Anthropic\'s clients', async (t) => {
  const { server, tw } = await running(t);
  const chat = {
    id: 'chatcmpl-1',
    model: 'gpt-4o-2024-08-06',
    choices: [],
    usage: {
      prompt_tokens: 10,
      completion_tokens: 5,
      prompt_tokens_details: { cached_tokens: 4 },
      completion_tokens_details: { reasoning_tokens: 2 },
    },
  };
  const message = {
    id: 'msg_1',
    model: 'claude',
    usage: { input_tokens: 1, cache_read_input_tokens: 20, cache_creation_input_tokens: 300, output_tokens: 7 },
  };
  await tw.trace('turn', async (ctx) => {
    await ctx.llmCall('chat', () => chat, { model: 'gpt-4o', provider: 'openai', outputTokens: 6 });
    await ctx.llmCall('message', async () => message, { provider: 'anthropic' });
    await ctx.span('no call', () => chat);
  });
  await tw.flush();
  assert.deepEqual(server.span('chat').kind, {
    type: 'llm_call',
    model: 'gpt-4o-2024-08-06',
    provider: 'openai',
    output_tokens: 6,
    response_id: 'chatcmpl-1',
    input_tokens: 10,
    cached_input_tokens: 4,
    reasoning_tokens: 2,
  });
  assert.deepEqual(server.span('message').kind, {
    type: 'llm_call',
    provider: 'anthropic',
    model: 'claude',
    response_id: 'msg_1',
    input_tokens: 321,
    output_tokens: 7,
    cached_input_tokens: 20,
    cache_write_tokens: 300,
  });
  assert.deepEqual(server.span('no call').kind, { type: 'custom' });
  assert.deepEqual(server.span('chat').output, chat);
});

test('a result that can be read once only is left to the application', async (t) => {
  const { server, tw } = await running(t);
  async function* tokens() { yield 'a'; }
  await tw.trace('turn', async (ctx) => {
    const stream = await ctx.llmCall('stream', () => tokens());
    for await (const token of stream) assert.equal(token, 'a');
    await ctx.span('response', () => new Response('body'));
    await ctx.span('own', (span) => { span.setOutput('own'); return 'result'; });
  });
  await tw.flush();
  assert.equal('output' in server.span('stream'), false);
  assert.equal('output' in server.span('response'), false);
  assert.equal(server.span('own').output, 'own');
});

test('results are not recorded where that is off', async (t) => {
  const { server, tw } = await running(t, { captureOutput: false });
  await tw.trace('turn', (ctx) => ctx.span('step', () => 'secret'));
  await tw.flush();
  assert.equal('output' in server.span('step'), false);
});

test('a span that began before it was told of is as long as that', async (t) => {
  const { server, tw } = await running(t);
  const trace = tw.trace('turn', { startedAt: '2026-01-01T00:00:00Z' });
  trace.span('old', { startedAt: new Date(Date.now() - 60_000) }).end();
  trace.span('odd', { startedAt: 'yesterday' }).end();
  trace.end();
  await tw.flush();
  assert.equal(server.trace('turn').started_at, '2026-01-01T00:00:00.000000Z');
  assert.ok(Math.abs(Date.parse(server.trace('turn').ended_at) - Date.now()) < 10_000);
  assert.ok(server.span('old').duration_ms >= 59_000 && server.span('old').duration_ms < 70_000);
  assert.ok(server.span('odd').duration_ms < 10_000);
});

test('a trace that another process began is gone on with', async (t) => {
  const { server, tw } = await running(t);
  const trace = tw.trace('turn', { id: '019AC8F0-a1b2-7c3d-8e4f-5a6b7c8d9e0f' });
  assert.equal(trace.id, '019ac8f0a1b27c3d8e4f5a6b7c8d9e0f');
  assert.match(tw.trace('zeros', { id: '0'.repeat(32) }).id, /[1-9a-f]/);
  await tw.flush();
  assert.ok(server.traces.has(trace.id));
});

test('nothing that an application gives makes it throw', async (t) => {
  const { server, tw, errors } = await running(t);
  const hostile = new Proxy({}, { ownKeys() { throw new Error('no keys'); }, get() { throw new Error('no get'); } });
  for (const junk of [null, undefined, 5, 'text', Symbol('s'), 10n, () => 1, hostile, [], new Map([[1, 2]])]) {
    const trace = tw.trace(junk, junk === undefined || typeof junk === 'function' ? {} : junk);
    const span = trace.span(junk, typeof junk === 'function' ? {} : junk);
    trace.llmCall('call', typeof junk === 'function' ? {} : junk).end(junk);
    span.setInput(junk).setOutput(junk).set(junk).setMetadata(junk);
    span.end(junk);
    trace.span('failing').fail(junk, junk);
    trace.headers();
    trace.fail(junk);
  }
  assert.equal(await tw.flush(), true);
  assert.ok(server.spans.size > 20);
  assert.ok(errors.every((error) => error.name === 'TracewayError'));
});
