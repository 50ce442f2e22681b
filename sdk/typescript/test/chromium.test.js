/** The package in a real browser, from a page of the server's own origin. */

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { FakeServer } from './server.js';

const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const PAGE = `<!doctype html><title>page</title><pre id=told></pre><script type="module">
  import { Traceway } from '/dist/index.js';
  const tw = new Traceway({ url: location.origin, apiKey: 'tw_sk_page' });
  const seen = [];
  const subscription = tw.subscribe((event) => seen.push(event.type), { onOpen: async () => {
    const result = await tw.trace('in a page', (ctx) => ctx.span('step', () => 42), { sessionId: '會話' });
    const isSent = await tw.flush();
    while (seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    subscription.close();
    document.getElementById('told').textContent = JSON.stringify({ result, isSent, dropped: tw.dropped, seen });
  } });
</script>`;

const browser = ['chromium', 'chromium-browser', 'google-chrome'].find((name) => {
  try {
    return execFileSync('which', [name]);
  } catch {
    return undefined;
  }
});

test('a browser runs it as it is', { skip: browser ? false : 'there is no chromium' }, async (t) => {
  const fake = await FakeServer.start();
  // One origin for both: no page of another may hand in.
  const front = createServer(async (request, response) => {
    if (request.url === '/') return response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(PAGE);
    if (request.url.startsWith('/dist/')) {
      const file = readFileSync(join(DIST, request.url.slice(6)));
      return response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(file);
    }
    if (!request.url.startsWith('/api/')) return response.writeHead(404).end();
    fake.http.emit('request', request, response);
  });
  await new Promise((resolve) => front.listen(0, '127.0.0.1', resolve));
  const profile = await mkdtemp(join(tmpdir(), 'traceway-page-'));
  t.after(async () => {
    front.closeAllConnections();
    front.close();
    await fake.stop();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  fake.until(() => fake.trace('in a page')).then((trace) => {
    fake.emit({ type: 'trace_created', trace_id: trace.id, session_id: trace.session_id, at: 'now', trace: null });
  });
  const told = await dumped(`http://127.0.0.1:${front.address().port}/`, profile);
  assert.deepEqual(told, { result: 42, isSent: true, dropped: 0, seen: ['trace_created'] });
  assert.equal(fake.trace('in a page').session_id, '會話');
  assert.equal(fake.span('step').output, 42);
  assert.equal(fake.batches[0].headers.authorization, 'Bearer tw_sk_page');
});

/** Load a page, and give what it tells when it is done. */
function dumped(url, profile) {
  const options = ['--headless', '--no-sandbox', '--disable-gpu', '--dump-dom', '--virtual-time-budget=15000'];
  return new Promise((resolve, reject) => {
    execFile(browser, [...options, `--user-data-dir=${profile}`, url], { timeout: 120_000 }, (error, out) => {
      const text = /<pre id="told">(.*?)<\/pre>/s.exec(out ?? '')?.[1];
      if (text) resolve(JSON.parse(text));
      else reject(error ?? new Error(`the page told nothing: ${out}`));
    });
  });
}
