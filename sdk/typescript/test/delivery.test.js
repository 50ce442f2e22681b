import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Traceway } from 'traceway';

import { running } from './running.js';
import { FakeServer } from './server.js';

const later = () => new Promise(setImmediate);

test('what the server cannot take now is sent again, and is there once', async (t) => {
  const { server, tw } = await running(t);
  const no = { message: 'not now', code: 'storage_unavailable' };
  server.script.push(
    'close',
    { status: 503, body: { error: no }, headers: { 'Retry-After': '0' } },
    { status: 429, body: 'busy', headers: { 'Retry-After': '0.01' } },
    // Taken, and its answer lost.
    (request) => { JSON.parse(request.body).items.forEach((one) => server.traces.set(one.id, one)); return { status: 502 }; },
  );
  tw.trace('turn');
  assert.equal(await tw.flush(), true);
  assert.equal(server.batches.length, 5);
  assert.equal(new Set(server.batches.map((batch) => batch.body)).size, 1);
  assert.equal(server.traces.size, 1);
  assert.equal(tw.dropped, 0);
});

test('an outage is reported once, and costs nothing', async (t) => {
  const { server, tw, errors } = await running(t);
  server.script.push('close', 'close');
  tw.trace('turn');
  assert.equal(await tw.flush(), true);
  assert.deepEqual(errors.map((error) => error.code), ['connection']);
  assert.equal(tw.dropped, 0);
});

test('a server that is not there yet gets all in order when it comes', async (t) => {
  const first = await FakeServer.start();
  await first.stop();
  const tw = new Traceway({ url: first.url, flushDelayMs: 1, onError: () => {} });
  t.after(() => tw.close(0));
  await tw.trace('turn', async (ctx) => {
    for (let i = 0; i < 2500; i++) ctx.span(`step ${i}`).end();
  });
  const server = await FakeServer.start(first.port);
  t.after(() => server.stop());
  assert.equal(await tw.flush(), true);
  assert.equal(server.spans.size, 2500);
  assert.equal(server.items.at(0).type, 'trace');
  assert.equal(server.items.at(-1).type, 'end');
  assert.ok(server.batches.every((batch) => JSON.parse(batch.body).items.length <= 1000));
  assert.equal(tw.dropped, 0);
});

test('an end of which the server knows already is no loss', async (t) => {
  const { server, tw, errors } = await running(t);
  const span = tw.trace('turn').span('step');
  await tw.flush();
  server.ended.add(span.id);
  span.end();
  assert.equal(await tw.flush(), true);
  assert.deepEqual([tw.dropped, errors], [0, []]);
});

test('an id that is another call\'s is a loss', async (t) => {
  const { server, tw, errors } = await running(t);
  server.script.push({ body: { results: [{ status: 409, id: 'x', trace_id: null, error: { code: 'conflict', message: 'taken', param: null } }] } });
  tw.trace('turn');
  assert.equal(await tw.flush(), true);
  assert.deepEqual([tw.dropped, errors[0].code, errors[0].status], [1, 'conflict', 409]);
});

test('a bad item is dropped, counted and reported once, and costs the others nothing', async (t) => {
  const { server, tw, errors } = await running(t);
  tw.trace('refused');
  tw.trace('good');
  tw.trace('refused');
  assert.equal(await tw.flush(), true);
  tw.trace('refused');
  assert.equal(await tw.flush(), true);
  assert.equal(tw.dropped, 3);
  assert.ok(server.trace('good'));
  assert.equal(errors.length, 1);
  assert.deepEqual([errors[0].status, errors[0].code, errors[0].param], [400, 'bad_parameter', 'name']);
  assert.match(errors[0].message, /name is refused/);
});

for (const status of [400, 401, 403, 404, 302]) {
  test(`a ${status} is not asked again`, async (t) => {
    const { server, tw, errors } = await running(t);
    server.script.push({ status, body: { error: { message: 'no', code: 'x' } }, headers: { Location: '/elsewhere' } });
    tw.trace('turn');
    assert.equal(await tw.flush(), true);
    assert.deepEqual([server.requests.length, tw.dropped, errors.length], [1, 1, 1]);
  });
}

test('something else than a Traceway server is seen as that', async (t) => {
  const { server, tw, errors } = await running(t);
  server.script.push({ body: '<html>' }, { body: { results: 1 } });
  tw.trace('one');
  await tw.flush();
  tw.trace('two');
  await tw.flush();
  assert.deepEqual([tw.dropped, errors.length], [2, 1]);
});

test('a batch that is too large is halved, until what is too large is alone', async (t) => {
  const { server, tw } = await running(t);
  const limit = (request) => {
    server.script.push(limit);
    return request.body.length > 3000 ? { status: 413, body: { error: { message: 'too large', code: 'request_too_large' } } } : undefined;
  };
  server.script.push(limit);
  const trace = tw.trace('turn');
  for (let i = 0; i < 20; i++) trace.span(`step ${i}`, { input: 'x'.repeat(i === 7 ? 5000 : 500) }).end();
  assert.equal(await tw.flush(), true);
  assert.equal(server.spans.size, 19);
  assert.equal(tw.dropped, 1);
});

test('memory is bounded: what has no room is dropped and counted, and nothing blocks', async (t) => {
  const { server, tw, errors } = await running(t, { maxQueueItems: 100 });
  server.script.push('silence');
  const trace = tw.trace('turn');
  await server.until(() => server.requests.length === 1);
  for (let i = 0; i < 250; i++) trace.span('step').end();
  assert.equal(tw.dropped, 150);
  assert.equal(errors.length, 1);
  assert.match(errors[0].message, /too much waits/);
});

test('a batch that is due is not put off by what comes, or it would never go', async (t) => {
  const { server, tw } = await running(t, { flushDelayMs: 60_000 });
  const timers = t.mock.method(globalThis, 'setTimeout');
  const trace = tw.trace('turn');
  for (let i = 0; i < 2000; i++) trace.span('step');
  assert.deepEqual(timers.mock.calls.map((call) => call.arguments[1]), [60_000, 0]);
  await server.until(() => server.spans.size > 500);
});

test('a span whose beginning found no room is handed in whole with its end', async (t) => {
  const { server, tw } = await running(t, { maxQueueItems: 1 });
  const trace = tw.trace('turn');
  const span = trace.span('step', { input: 'in' });
  assert.equal(tw.dropped, 1);
  await tw.flush();
  span.end({ output: 'out' });
  assert.equal(await tw.flush(), true);
  const { input, output, status } = server.span('step');
  assert.deepEqual({ input, output, status }, { input: 'in', output: 'out', status: 'completed' });
  assert.equal(tw.dropped, 0);
});

test('flush waits for what was said before it, and not for ever', async (t) => {
  const { server, tw } = await running(t, { flushDelayMs: 60_000 });
  assert.equal(await tw.flush(), true);
  tw.trace('one');
  assert.equal(await tw.flush(), true);
  assert.ok(server.trace('one'));
  server.script.push('silence');
  tw.trace('two');
  assert.equal(await tw.flush(20), false);
});

test('a closed client sends what waits, and counts what comes later', async (t) => {
  const { server, tw } = await running(t, { flushDelayMs: 60_000 });
  const trace = tw.trace('turn');
  assert.equal(await tw.close(), true);
  assert.ok(server.trace('turn'));
  trace.span('late').end();
  await later();
  assert.equal(server.requests.length, 1);
  assert.ok(tw.dropped > 0);
});

test('a client that closes before a server that is silent gives up and counts', async (t) => {
  const { server, tw } = await running(t);
  server.script.push('silence');
  tw.trace('turn');
  assert.equal(await tw.close(20), false);
  assert.equal(tw.dropped, 1);
});

test('a client that is off sends nothing', async (t) => {
  const { server, tw } = await running(t, { enabled: false });
  assert.equal(await tw.trace('turn', (ctx) => ctx.span('step', () => 5)), 5);
  assert.equal(await tw.flush(), true);
  assert.deepEqual([server.requests.length, tw.dropped], [0, 0]);
});

test('an onError that throws reaches nobody', async (t) => {
  const { tw } = await running(t, { onError: () => { throw new Error('mine'); } });
  tw.trace('refused');
  assert.equal(await tw.flush(), true);
  assert.equal(tw.dropped, 1);
});
