import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Traceway } from 'traceway';

import { running } from './running.js';
import { FakeServer } from './server.js';

const event = (number) => ({ type: 'span_created', trace_id: 't', span_id: `${number}`, session_id: null, model: null, status: 'running' });

/** Subscribe, and wait until the server has the stream open. */
async function listening(server, tw, options) {
  const events = [];
  let wake = () => {};
  const opened = new Promise((resolve) => (wake = resolve));
  const more = { next: () => {} };
  const subscription = tw.subscribe((one) => { events.push(one); more.next(); }, { ...options, onOpen: wake });
  await opened;
  const until = async (count) => {
    while (events.length < count) await new Promise((resolve) => (more.next = resolve));
    return events;
  };
  return { events, subscription, until };
}

test('a listener gets events as they come, with the key in a header', async (t) => {
  const { server, tw } = await running(t);
  const { subscription, until } = await listening(server, tw, { sessionId: 'a b', kinds: ['span_created', 'span_failed'], model: 'm', progress: true });
  server.emit(event(1));
  server.emit(event(2));
  assert.deepEqual((await until(2)).map((one) => one.span_id), ['1', '2']);
  const { path, query, headers } = server.requests[0];
  assert.equal(path, '/api/events');
  assert.deepEqual(Object.fromEntries(query), { session: 'a b', kind: 'span_created,span_failed', model: 'm', progress: '1' });
  assert.equal(headers.authorization, 'Bearer tw_sk_test');
  assert.equal(subscription.lastEventId, '2');
  subscription.close();
  await subscription.closed;
});

test('a break costs no event and tells none twice', async (t) => {
  const { server, tw } = await running(t);
  const { subscription, until } = await listening(server, tw);
  server.emit(event(1));
  await until(1);
  server.script.push('close', { status: 503, headers: { 'Retry-After': '0' }, body: {} });
  for (const stream of server.streams) stream.destroy();
  server.events.push(event(2));
  assert.deepEqual((await until(2)).map((one) => one.span_id), ['1', '2']);
  const asked = server.requests.filter((request) => request.path === '/api/events');
  assert.deepEqual(asked.map((request) => request.headers['last-event-id']), [undefined, '1', '1', '1']);
  subscription.close();
});

test('a break before any event goes on from where it began', async (t) => {
  const { server, tw } = await running(t);
  server.events.push(event(1), event(2));
  const { until } = await listening(server, tw);
  // The first frame says where, and is there when the next comes.
  for (const stream of server.streams) stream.end();
  server.events.push(event(3));
  assert.deepEqual((await until(1)).map((one) => one.span_id), ['3']);
});

test('a loop gets events until it is left, which closes the connection', async (t) => {
  const { server, tw } = await running(t);
  server.events.push(event(1), event(2), event(3));
  const got = [];
  const stream = tw.subscribe({ since: 1 });
  for await (const one of stream) {
    got.push(one.span_id);
    if (got.length === 2) break;
  }
  assert.deepEqual(got, ['2', '3']);
  assert.equal(stream.lastEventId, '3');
  await new Promise((resolve) => (server.streams.size === 0 ? resolve() : [...server.streams][0].on('close', resolve)));
});

test('a signal ends it, also while it waits', async (t) => {
  const { server, tw } = await running(t);
  const end = new AbortController();
  const { subscription } = await listening(server, tw, { signal: end.signal });
  end.abort();
  await subscription.closed;
  const stream = tw.subscribe({ signal: AbortSignal.abort() });
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test('a refusal for good ends it with an error', async (t) => {
  const { server, tw, errors } = await running(t);
  const refusal = { status: 401, body: { error: { message: 'no key', code: 'unauthorized' } } };
  server.script.push(refusal, refusal);
  await assert.rejects(tw.subscribe(() => {}).closed, { status: 401, code: 'unauthorized' });
  await assert.rejects(tw.subscribe().next(), { status: 401 });
  assert.deepEqual(errors.map((error) => error.code), ['unauthorized']);
});

test('a listener that throws gets the next event all the same', async (t) => {
  const { server, tw, errors } = await running(t);
  const got = [];
  let done;
  const over = new Promise((resolve) => (done = resolve));
  tw.subscribe((one) => {
    got.push(one.span_id);
    if (got.length === 2) done();
    throw new Error('mine');
  }, { onOpen: () => { server.events.push(event(1), event(2)); }, since: 0 });
  await server.until(() => server.streams.size > 0);
  for (const stream of server.streams) stream.end();
  await over;
  assert.match(errors[0].message, /mine/);
});

test('a page of another origin shows a new ticket each time, and sends no header of its own', async (t) => {
  const { server, tw } = await running(t);
  let tickets = 0;
  server.script.push({ status: 401, body: { error: { message: 'used', code: 'unauthorized' } } });
  const { until } = await listening(server, tw, { ticket: async () => `tw_st_${++tickets}`, since: 0 });
  server.emit(event(1));
  await until(1);
  const asked = server.requests.map(({ query, headers }) => [query.get('token'), query.get('since'), headers.authorization, headers['last-event-id']]);
  assert.deepEqual(asked, [['tw_st_1', '0', undefined, undefined], ['tw_st_2', '0', undefined, undefined]]);
  server.script.push({ status: 201, body: { token: 'tw_st_x', expires_in_s: 30 } });
  assert.equal((await tw.createTicket()).token, 'tw_st_x');
});

test('a client that closes ends its subscriptions', async (t) => {
  const { server, tw } = await running(t);
  const { subscription } = await listening(server, tw);
  await tw.close();
  await subscription.closed;
});
