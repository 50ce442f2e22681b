/** What a whole process does: it ends by itself, and what it said is there. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';

import { FakeServer } from './server.js';

async function run(source, env, onError = () => {}) {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source], {
    cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const told = { out: '', err: '' };
  child.stdout.on('data', (data) => (told.out += data));
  child.stderr.on('data', (data) => {
    told.err += data;
    onError();
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  return { ...told, code };
}

const OPEN = `
import { Traceway } from 'traceway';
const tw = new Traceway({ flushDelayMs: 60_000 });
const trace = tw.trace('chat-turn', { sessionId: 'sess_abc123' });
trace.span('open');
trace.span('over').end();
const began = performance.now();
process.on('exit', () => console.log(performance.now() - began));
`;
// What would hold a process without `exitTimeoutMs` is the 10 s that a batch may take.
const IN_TIME_MS = 9000;

test('a process that ends by itself sends what waits, and is not held otherwise', async (t) => {
  const server = await FakeServer.start();
  t.after(() => server.stop());
  const { code, err, out } = await run(OPEN, { TRACEWAY_URL: server.url, TRACEWAY_API_KEY: 'tw_sk_env' });
  assert.deepEqual([code, err], [0, '']);
  assert.ok(Number(out) < IN_TIME_MS, `${out} ms`);
  assert.equal(server.trace('chat-turn').session_id, 'sess_abc123');
  assert.equal(server.span('open').status, 'running');
  assert.equal(server.span('over').status, 'completed');
  assert.equal(server.requests[0].headers.authorization, 'Bearer tw_sk_env');
});

test('a process whose server is not there ends in time, and says what was lost', async () => {
  const gone = await FakeServer.start();
  await gone.stop();
  const source = OPEN.replace('60_000', '1, exitTimeoutMs: 300');
  const { code, err, out } = await run(source, { TRACEWAY_URL: gone.url });
  assert.equal(code, 0);
  assert.match(err, /traceway: http:\/\/127\.0\.0\.1:\d+ cannot be reached: .*ECONNREFUSED/);
  assert.match(err, /traceway: items are dropped: the process ended/);
  assert.ok(Number(out) < IN_TIME_MS, `${out} ms`);
});

test('a process whose server is silent ends in time', async (t) => {
  const server = await FakeServer.start();
  t.after(() => server.stop());
  server.script.push('silence');
  const { code, err, out } = await run(OPEN.replace('60_000', '60_000, exitTimeoutMs: 300'), { TRACEWAY_URL: server.url });
  assert.equal(code, 0);
  assert.match(err, /items are dropped: the process ended/);
  assert.ok(Number(out) < IN_TIME_MS, `${out} ms`);
});

test('a server that comes back within the time of the end gets all', async (t) => {
  const gone = await FakeServer.start();
  await gone.stop();
  // It says so once it has failed for the first time.
  let ended;
  await new Promise((resolve) => (ended = run(OPEN, { TRACEWAY_URL: gone.url }, resolve)));
  const server = await FakeServer.start(gone.port);
  t.after(() => server.stop());
  assert.equal((await ended).code, 0);
  assert.ok(server.trace('chat-turn'));
});

test('without an address and a key it is the local server without one', async () => {
  const source = `
    import { Traceway } from 'traceway';
    const tw = new Traceway({ fetch: async (url, init) => { console.log(url, init.headers.Authorization); throw new Error('off'); } });
    await tw.getSessions().catch((error) => console.log(error.name, error.code, error.retryable));
  `;
  const { out } = await run(source, { TRACEWAY_URL: '', TRACEWAY_API_KEY: '' });
  assert.match(out, /^http:\/\/127\.0\.0\.1:3000\/api\/sessions undefined\n/);
  assert.match(out, /TracewayError connection true\n$/);
});
