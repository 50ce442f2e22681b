/** The types that the package ships, as an application's compiler sees them. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../', import.meta.url));

function compiled(...options) {
  const tsc = `${ROOT}node_modules/typescript/bin/tsc`;
  // Not `skipLibCheck`: our own declarations are checked too.
  const always = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--target', 'es2022', ...options];
  return new Promise((resolve) => {
    execFile(process.execPath, [tsc, ...always, `${ROOT}test/types.example.ts`], { cwd: ROOT }, (error, out) => resolve(out));
  });
}

test('they hold in Node without the types of a page', async () => {
  assert.equal(await compiled('--module', 'nodenext', '--lib', 'es2023', '--types', 'node'), '');
});

test('they hold in a page without the types of Node', async () => {
  const options = ['--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'es2023,dom,dom.iterable'];
  assert.equal(await compiled(...options, '--typeRoots', `${ROOT}test`), '');
});

test('each field that the API describes is in the types of its answers', () => {
  const documented = objects(readFileSync(`${ROOT}../../docs/api.md`, 'utf8'));
  const typed = interfaces(readFileSync(`${ROOT}src/views.ts`, 'utf8'));
  const pairs = {
    Session: 'Session', SessionWithTraces: 'SessionWithTraces', Trace: 'TraceRow', TraceWithSpans: 'TraceWithSpans',
    Span: 'SpanRow', Kind: 'SpanKind', SpanMetadata: 'SpanMetadata', Body: 'SpanBody', End: 'SpanEnd', Budget: 'Budget',
    SessionList: 'SessionList', TraceList: 'TraceList', SpanList: 'SpanList', Ticket: 'Ticket',
  };
  for (const [object, name] of Object.entries(pairs)) {
    assert.ok(documented[object]?.length > 0 && typed[name]?.length > 0, `${object}, ${name}`);
    assert.deepEqual(documented[object].filter((field) => !typed[name].includes(field)), [], object);
  }
});

function objects(text) {
  const sections = text.split(/^### /m).slice(1).map((section) => {
    const fields = [...section.matchAll(/^\| `(\w+)` \|/gm)].map((match) => match[1]);
    return [section.split('\n', 1)[0], fields];
  });
  return Object.fromEntries(sections);
}

function interfaces(text) {
  const found = {};
  for (const [, name, parent, body] of text.matchAll(/^(?:export )?interface (\w+)(?: extends (\w+))? \{\n(.*?)^\}/gms)) {
    const own = [...body.matchAll(/^  (\w+)\??:/gm)].map((match) => match[1]);
    found[name] = [...(found[parent] ?? []), ...own];
  }
  return found;
}
