/** A page: no contexts, and it may go at any moment. Its globals are put up before the package is loaded. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

const listeners = {};
globalThis.addEventListener = (name, listener) => (listeners[name] = listener);
globalThis.document = {
  visibilityState: 'visible',
  addEventListener: (name, listener) => (listeners[name] = listener),
};
const { Traceway } = await import('../dist/index.js');
const { FakeServer } = await import('./server.js');

/** A client whose requests are kept with what they were made with. */
async function page(t, options) {
  const server = await FakeServer.start();
  const asked = [];
  const tw = new Traceway({
    url: server.url,
    flushDelayMs: 60_000,
    onError: () => {},
    fetch: (url, init) => { asked.push(init); return fetch(url, init); },
    ...options,
  });
  t.after(async () => { await tw.close(0); await server.stop(); });
  return { server, tw, asked };
}

test('without contexts nothing is current, and what is passed on is the place', async (t) => {
  const { server, tw } = await page(t);
  await tw.trace('turn', (ctx) => ctx.span('outer', async (outer) => {
    assert.equal(tw.current, undefined);
    ctx.span('beside').end();
    outer.span('inside').end();
    assert.equal(tw.headers(outer)['X-Traceway-Parent-Span-Id'], outer.id);
  }));
  await tw.flush();
  assert.equal(server.span('beside').parent_id, undefined);
  assert.equal(server.span('inside').parent_id, server.span('outer').id);
});

for (const [name, go] of [
  ['pagehide', () => listeners.pagehide()],
  ['a hidden page', () => { document.visibilityState = 'hidden'; listeners.visibilitychange(); document.visibilityState = 'visible'; }],
]) {
  test(`${name} sends what waits by a request that outlives it`, async (t) => {
    const { server, tw, asked } = await page(t);
    tw.trace('turn');
    listeners.visibilitychange();
    assert.equal(asked.length, 0);
    go();
    assert.equal(asked.length, 1);
    assert.equal(asked[0].keepalive, true);
    await server.until(() => server.trace('turn'));
    assert.equal(await tw.flush(), true);
    assert.equal(tw.dropped, 0);
    go();
    assert.equal(asked.length, 1);
  });
}

test('what may outlive a page has 64 KiB, and the rest is tried beside it', async (t) => {
  const { server, tw, asked } = await page(t);
  for (let i = 0; i < 20; i++) tw.trace('turn', { userId: 'u'.repeat(512), sessionId: 'x'.repeat(9000) });
  listeners.pagehide();
  const [first, rest] = asked;
  assert.deepEqual([first.keepalive, rest.keepalive], [true, undefined]);
  assert.ok(first.body.length <= 60_100 && first.body.length > 40_000);
  assert.equal(await tw.flush(), true);
  assert.equal(server.traces.size, 20);
});

test('what is under way when a page goes is sent again, and taken once', async (t) => {
  const { server, tw, asked } = await page(t, { flushDelayMs: 1 });
  server.script.push('silence');
  tw.trace('turn');
  await server.until(() => server.requests.length === 1);
  listeners.pagehide();
  await server.until(() => server.trace('turn'));
  assert.deepEqual(asked.map((init) => init.keepalive), [undefined, true]);
  assert.equal(asked[0].body, asked[1].body);
});

test('a page that stays sends again what could not be sent', async (t) => {
  const { server, tw } = await page(t, { flushDelayMs: 1 });
  server.script.push('close');
  tw.trace('turn');
  listeners.pagehide();
  await server.until(() => server.trace('turn'));
  assert.equal(await tw.flush(), true);
  assert.equal(tw.dropped, 0);
});
