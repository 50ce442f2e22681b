import assert from 'node:assert/strict';
import { test } from 'node:test';

import { iso, timeOf } from '../dist/clock.js';
import { headerText } from '../dist/headers.js';
import { backOffMs } from '../dist/http.js';
import { makeSpanId, makeTraceId } from '../dist/ids.js';
import { kindJson, metadataJson, wireKind } from '../dist/kinds.js';
import { pathOf, queryOf } from '../dist/queries.js';
import { Item, Queue } from '../dist/queue.js';
import { SseDecoder } from '../dist/sse.js';

test('ids are of their form, and none comes twice', () => {
  const traces = Array.from({ length: 10_000 }, makeTraceId);
  const spans = Array.from({ length: 10_000 }, makeSpanId);
  assert.equal(new Set([...traces, ...spans]).size, 20_000);
  for (const id of traces) assert.match(id, /^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$/);
  for (const id of spans) assert.match(id, /^[0-9a-f]{16}$/);
  assert.ok(Math.abs(parseInt(traces[0].slice(0, 12), 16) - Date.now()) < 60_000);
});

test('times have microseconds, and what is no time is none', () => {
  assert.equal(iso(1_700_000_000_000.25), '2023-11-14T22:13:20.000250Z');
  assert.equal(iso(-0.5), '1969-12-31T23:59:59.999500Z');
  assert.equal(timeOf(new Date(0)), '1970-01-01T00:00:00.000000Z');
  assert.deepEqual([timeOf(new Date(NaN)), timeOf(undefined), timeOf({})], [undefined, undefined, undefined]);
});

test('a header holds the bytes of a session id\'s UTF-8', () => {
  assert.equal(headerText(' user_123:conv_456 '), 'user_123:conv_456');
  assert.equal(Buffer.from(headerText('會話 é😀'), 'latin1').toString(), '會話 é😀');
  assert.deepEqual([headerText('a\nb'), headerText(''), headerText('x'.repeat(10_000))], [undefined, undefined, undefined]);
});

test('waits double, with a part of chance, up to 30 s', () => {
  assert.deepEqual([1, 2, 3, 20].map((n) => backOffMs(n, () => 1)), [250, 500, 1000, 30_000]);
  assert.equal(backOffMs(1, () => 0), 125);
});

test('queries have the names of the API, and ids whatever a path needs', () => {
  assert.equal(
    queryOf({ sortBy: 'cost', nameContains: 'a b&c', since: new Date(0), id: ['1', '2'], cursor: undefined }),
    '?sort_by=cost&name_contains=a+b%26c&since=1970-01-01T00%3A00%3A00.000000Z&id=1%2C2',
  );
  assert.equal(pathOf('a/b c', { limit: 2 }), '/api/sessions/a%2Fb%20c?limit=2');
  assert.equal(pathOf('..', {}), '/api/sessions/by-id?id=..');
});

test('events are the same however their bytes are cut', () => {
  const text = '\ufeffretry: 7\r\nid: 1\n\n:hi\ndata: {"é":\r\rdata:1\r\ndata: 2\nid: 2\r\n\r\nevent: x\n\nid\n\ndata: rest';
  const bytes = new TextEncoder().encode(text);
  const whole = decode([bytes]);
  assert.deepEqual(whole, {
    frames: [['', '1'], ['{"é":', '1'], ['1\n2', '2'], ['', '']],
    retryMs: 7,
  });
  for (let at = 0; at <= bytes.length; at++) {
    assert.deepEqual(decode([bytes.slice(0, at), bytes.slice(at)]), whole, `cut at ${at}`);
  }
  assert.deepEqual(decode(Array.from(bytes, (byte) => Uint8Array.of(byte))), whole);
});

function decode(parts) {
  const decoder = new SseDecoder();
  const frames = [];
  for (const part of parts) for (const { data } of decoder.push(part)) frames.push([data, undefined]);
  // Ids are read frame by frame, which is how they are used.
  const again = new SseDecoder();
  const ids = [];
  for (const part of parts) {
    for (const byte of part) if (again.push(Uint8Array.of(byte)).length > 0) ids.push(again.lastId);
  }
  return { frames: frames.map(([data], at) => [data, ids[at]]), retryMs: decoder.retryMs };
}

const item = (text) => new Item('span', new Map([['id', JSON.stringify(text)]]));

test('a queue is bounded in items and in bytes, and gives batches within both bounds', () => {
  const queue = new Queue({ maxItems: 1200, maxBytes: 10_000_000 });
  for (let i = 0; i < 1200; i++) assert.equal(queue.add(item(`${i}`)), true);
  assert.equal(queue.add(item('more')), false);
  assert.equal(queue.take().items.length, 1000);
  assert.equal(queue.add(item('again')), true);
  const small = new Queue({ maxItems: 10, maxBytes: 1000 });
  assert.equal(small.add(item('x'.repeat(1000))), false);
  assert.equal(small.add(item('x'.repeat(100))), true);
  assert.equal(small.length, 1);
});

for (const place of ['Node', 'a page']) test(`a batch is as large as its UTF-8 in ${place}, and has one item at least`, (t) => {
  const { Buffer } = globalThis;
  if (place === 'a page') delete globalThis.Buffer;
  t.after(() => (globalThis.Buffer = Buffer));
  const queue = new Queue({ maxItems: 10, maxBytes: 10_000_000 });
  for (let i = 0; i < 3; i++) queue.add(item('會é😀'.repeat(300)));
  const { items, body } = queue.take(6000);
  assert.equal(items.length, 2);
  assert.equal(Buffer.byteLength(items[0].text()), 2700 + 23);
  assert.equal(queue.take(2700 + 24 + 2723).items.length, 1);
  assert.ok(Buffer.byteLength(body) <= 6000 + 20);
  queue.add(item('a'));
  queue.add(item('b'));
  assert.equal(queue.take(1).items.length, 1);
  assert.equal(queue.take().items.length, 1);
  assert.deepEqual(JSON.parse(queue.take().body), { items: [] });
});

test('an item that was taken out and put back is the first again', () => {
  const queue = new Queue({ maxItems: 10, maxBytes: 1_000_000 });
  queue.add(item('a'));
  const { items } = queue.take();
  queue.add(item('b'));
  queue.putBack(items);
  assert.deepEqual(JSON.parse(queue.take().body).items.map((one) => one.id), ['a', 'b']);
  assert.equal(queue.length, 0);
});

test('an end always has room, and what it gave only where there is some', () => {
  const queue = new Queue({ maxItems: 10, maxBytes: 2000 });
  const one = item('a');
  queue.add(one);
  const fields = new Map([['output', JSON.stringify('x'.repeat(5000))], ['status', '"completed"']]);
  assert.equal(queue.extend(one, fields), false);
  assert.equal(queue.take().body, '{"items":[{"type":"span","id":"a","status":"completed"}]}');
});

test('a kind is one that the server takes, whatever it was given', () => {
  assert.deepEqual(wireKind('retrieval'), { type: 'retrieval' });
  assert.deepEqual(wireKind('agent'), { type: 'custom', kind: 'agent', attributes: {} });
  assert.deepEqual(wireKind({ type: 5, a: 1 }), { type: 'custom', kind: '5', attributes: { a: 1 } });
  assert.deepEqual(wireKind({ type: 'custom', kind: 5, attributes: [1], b: 2 }), { type: 'custom', b: 2, attributes: { attributes: [1] } });
  assert.deepEqual(wireKind({ type: 'tool_call', model: 5, cost: 'much' }), { type: 'tool_call', model: 5, cost: 'much' });
  assert.deepEqual(
    wireKind({ type: 'llm_call', model: 5, inputTokens: '7', outputTokens: -1, cost: NaN, responseId: 'x'.repeat(600), cacheWriteTokens: 3, top_p: 1 }),
    { type: 'llm_call', response_id: 'x'.repeat(512), cache_write_tokens: 3, top_p: 1 },
  );
});

test('a kind that is too large keeps what it is', () => {
  const kind = { type: 'llm_call', model: 'm', input_tokens: 1, tools: 'x'.repeat(50_000) };
  assert.deepEqual(JSON.parse(kindJson(kind)), {
    type: 'llm_call', model: 'm', input_tokens: 1, attributes: { truncated: true, characters: JSON.stringify(kind).length },
  });
  assert.equal(JSON.parse(metadataJson({ a: 'x'.repeat(50_000) })).truncated, true);
});
