/** Each example of the README is compiled as strict TypeScript, and run. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { FakeServer } from './server.js';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const BUILD = `${ROOT}build/readme/`;
const blocks = [...readFileSync(`${ROOT}README.md`, 'utf8').matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1]);

test('the README has examples', () => assert.ok(blocks.length >= 8));

test('each compiles', async () => {
  rmSync(BUILD, { recursive: true, force: true });
  mkdirSync(BUILD, { recursive: true });
  blocks.forEach((block, at) => writeFileSync(`${BUILD}${at}.ts`, block));
  const files = blocks.map((_, at) => `${BUILD}${at}.ts`);
  const options = ['--strict', '--target', 'es2022', '--module', 'nodenext', '--skipLibCheck', '--types', 'node'];
  const { code, out } = await run(`${ROOT}node_modules/typescript/bin/tsc`, [...options, ...files]);
  assert.equal(code, 0, out);
});

for (const [at, block] of blocks.entries()) {
  const title = block.split('\n').find((line) => /tw\.\w+\(/.test(line))?.trim();
  test(`example ${at} runs: ${title}`, async (t) => {
    const server = await FakeServer.start();
    t.after(() => server.stop());
    server.read = (path) => READS.find(([pattern]) => pattern.test(path))?.[1];
    server.emit({ type: 'span_failed', trace_id: 't', span_id: 's', session_id: null, model: null, status: 'failed' });
    const { code, out } = await run(`${BUILD}${at}.js`, [], { TRACEWAY_URL: server.url, TRACEWAY_API_KEY: 'tw_sk_env' });
    assert.equal(code, 0, out);
    assert.doesNotMatch(out, /traceway:/);
    assert.ok(server.requests.length > 0);
    for (const [says, expected] of SAID) if (block.includes(says)) assert.match(out, expected);
    if (block.includes('sess_abc123\',\n')) assert.equal(server.trace('chat-turn').session_id, 'sess_abc123');
  });
}

// What the examples read, and what they say.
const READS = [
  [/^\/api\/proxy\/openai\/v1\/chat\/completions$/, { id: 'c', model: 'gpt-4o-mini', choices: [{ message: { content: 'It left.' } }] }],
  [/^\/api\/sessions$/, { sessions: [{ id: 'sess_abc123' }], count: 1 }],
  [/^\/api\/sessions\/sess_abc123$/, { id: 'sess_abc123', traces: [{}] }],
  [/^\/api\/traces$/, { traces: [{}], count: 1 }],
  [/^\/api\/traces\/[0-9a-f]{32}$/, { status: 'failed' }],
  [/^\/api\/spans$/, { spans: [], count: 0 }],
];
const SAID = [
  ['already_ended', /\[ 'sess_abc123' \]\n1\n0 1 failed\n409 already_ended\n$/],
  ['console.log(answer)', /^From 1 documents/],
  ['tw.dropped', /^0\n$/],
  ['span_failed', /^s\n$/],
];

function run(script, options, env = {}) {
  const child = spawn(process.execPath, [script, ...options], { cwd: ROOT, env: { ...process.env, ...env } });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (out += data));
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, out })));
}
