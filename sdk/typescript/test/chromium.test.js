/** The package in a real browser, from a page of the server's own origin and from one of another. */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Traceway } from 'traceway';

import { FakeServer } from './server.js';
import { TracewayServer, missing } from './traceway.js';

const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const page = (options, subscribed = '') => `<!doctype html><title>page</title><script type="module">
  import { Traceway } from '/dist/index.js';
  const tell = (told) => fetch('/told', { method: 'POST', body: JSON.stringify(told) });
  const errors = [];
  const tw = new Traceway({ ...${options}, onError: (error) => errors.push(error.message) });
  let see;
  const seen = new Promise((resolve) => (see = resolve));
  const subscription = tw.subscribe((event) => see(event.type), { ${subscribed} onOpen: async () => {
    const result = await tw.trace('in a page', (ctx) => ctx.span('step', () => 42), { sessionId: '會話' });
    const isSent = await tw.flush(60_000);
    await tell({ result, isSent, dropped: tw.dropped, seen: await seen, errors });
    subscription.close();
  } });
  subscription.closed.catch((error) => tell({ error: error.message }));
</script>`;

const browser = ['chromium', 'chromium-browser', 'google-chrome'].find((name) => {
  try {
    return execFileSync('which', [name]);
  } catch {
    return undefined;
  }
});

const skip = browser ? false : 'there is no chromium';

/** Serve the page and the package from an origin; `other` answers the rest. */
async function fronted(t, other) {
  let text = '';
  let tell;
  const told = new Promise((resolve) => (tell = resolve));
  const front = createServer((request, response) => {
    if (request.url === '/') response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(front.page);
    else if (request.url.startsWith('/dist/')) {
      const file = readFileSync(join(DIST, request.url.slice(6)));
      response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(file);
    } else if (request.url === '/told') {
      request.setEncoding('utf8').on('data', (data) => (text += data)).on('end', () => tell(JSON.parse(text)));
      response.end();
    } else other(request, response);
  });
  await new Promise((resolve) => front.listen(0, '127.0.0.1', resolve));
  front.url = `http://127.0.0.1:${front.address().port}`;
  front.profile = await mkdtemp(join(tmpdir(), 'traceway-page-'));
  front.told = told;
  t.after(async () => {
    front.closeAllConnections();
    front.close();
    await rm(front.profile, { recursive: true, force: true, maxRetries: 5 });
  });
  return front;
}

test('a browser runs it as it is', { skip }, async (t) => {
  const fake = await FakeServer.start();
  t.after(() => fake.stop());
  const front = await fronted(t, (request, response) => {
    if (request.url.startsWith('/api/')) fake.http.emit('request', request, response);
    else response.writeHead(404).end();
  });
  front.page = page("{ url: location.origin, apiKey: 'tw_sk_page' }");
  fake.until(() => fake.trace('in a page')).then((trace) => {
    fake.emit({ type: 'trace_created', trace_id: trace.id, session_id: trace.session_id, at: 'now', trace: null });
  });
  const told = await shown(front);
  assert.deepEqual(told, { result: 42, isSent: true, dropped: 0, seen: 'trace_created', errors: [] });
  assert.equal(fake.trace('in a page').session_id, '會話');
  assert.equal(fake.span('step').output, 42);
  assert.equal(fake.batches[0].headers.authorization, 'Bearer tw_sk_page');
});

test('a page of an allowed origin hands in to a real server, and watches it with tickets', { skip: skip || missing }, async (t) => {
  let reader;
  const front = await fronted(t, async (request, response) => {
    if (request.url === '/ticket') response.end((await reader.createTicket()).token);
    else response.writeHead(404).end();
  });
  const server = await TracewayServer.open(front.url);
  t.after(() => server.stop());
  reader = new Traceway({ url: server.url, apiKey: await server.key('admin') });
  const write = await server.key('write', reader.headers()['X-Traceway-Api-Key']);
  const ticket = "ticket: async () => (await fetch('/ticket')).text(),";
  front.page = page(JSON.stringify({ url: server.url, apiKey: write }), ticket);
  const told = await shown(front);
  assert.deepEqual(told, { result: 42, isSent: true, dropped: 0, seen: 'trace_created', errors: [] });
  const { traces } = await reader.getSession('會話');
  assert.deepEqual(traces.map((trace) => [trace.name, trace.status, trace.span_count]), [['in a page', 'completed', 1]]);
});

/** Show the page in a browser, and give what it tells when it is done. */
async function shown(front) {
  const options = ['--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-port=0'];
  const child = spawn(browser, [...options, `--user-data-dir=${front.profile}`, front.url], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.on('close', resolve));
  try {
    return await Promise.race([front.told, ended.then((code) => assert.fail(`the browser ended: ${code}`))]);
  } finally {
    child.kill();
    await ended;
  }
}
