/** The package as it is published: what is in it, and that it loads where nothing else is. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const manifest = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8'));

test('it has no dependencies, and its lock names each package by version and hash alone', () => {
  assert.deepEqual([manifest.dependencies, manifest.peerDependencies, manifest.optionalDependencies], [undefined, undefined, undefined]);
  const text = readFileSync(`${ROOT}package-lock.json`, 'utf8');
  assert.doesNotMatch(text, /"resolved"|https?:/);
  const { '': own, ...locked } = JSON.parse(text).packages;
  assert.deepEqual(own.devDependencies, manifest.devDependencies);
  for (const [name, { version, integrity }] of Object.entries(locked)) {
    assert.match(version, /^\d/, name);
    assert.match(integrity, /^sha512-/, name);
  }
});

test('packed and unpacked, it loads by name, in ESM', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'traceway-package-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const options = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder];
  const [{ filename, files }] = JSON.parse(execFileSync('npm', options, { cwd: ROOT, encoding: 'utf8' }));
  const folders = new Set(files.map(({ path }) => path.split('/')[0]));
  assert.deepEqual([...folders].sort(), ['README.md', 'dist', 'package.json', 'src']);
  const home = join(folder, 'node_modules', 'traceway');
  mkdirSync(home, { recursive: true });
  execFileSync('tar', ['-xzf', join(folder, filename), '-C', home, '--strip-components=1']);
  const source = `
    import { Traceway, TracewayError } from 'traceway';
    const tw = new Traceway({ enabled: false });
    const traceId = await tw.trace('turn', async (ctx) => tw.current.id);
    console.log(traceId.length, TracewayError.name);
  `;
  const out = execFileSync(process.execPath, ['--input-type=module', '--eval', source], { cwd: folder, encoding: 'utf8' });
  assert.equal(out, '32 TracewayError\n');
});
