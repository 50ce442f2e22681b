import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MAX_VALUE_CHARACTERS, messageOf, toJson } from '../dist/json.js';

const read = (value) => JSON.parse(toJson(value));

test('what JSON cannot hold is told in words', () => {
  const circular = { name: 'c' };
  circular.self = circular;
  assert.deepEqual(
    read({
      big: 10n ** 30n,
      nothing: undefined,
      map: new Map([['a', 1]]),
      pairs: new Map([[1, 2]]),
      set: new Set(['x']),
      infinite: Infinity,
      none: NaN,
      symbol: Symbol('s'),
      run: function run() {},
      bytes: new Uint8Array(1_000_000),
      when: new Date(0),
      never: new Date(NaN),
      link: new URL('http://a/b'),
      promise: Promise.resolve(),
      circular,
    }),
    {
      big: '1000000000000000000000000000000',
      map: { a: 1 },
      pairs: [[1, 2]],
      set: ['x'],
      infinite: 'Infinity',
      none: 'NaN',
      symbol: 'Symbol(s)',
      run: '[function run]',
      bytes: '[Uint8Array of 1000000 bytes]',
      when: '1970-01-01T00:00:00.000Z',
      never: null,
      link: 'http://a/b',
      promise: '[object Promise]',
      circular: { name: 'c', self: '[circular]' },
    },
  );
  assert.deepEqual([read(undefined), read(null), read([undefined])], [null, null, [null]]);
});

test('one object in two places is no circle', () => {
  const one = { a: 1 };
  assert.deepEqual(read([one, one]), [{ a: 1 }, { a: 1 }]);
});

test('an error has its name, message and cause', () => {
  const error = new TypeError('no', { cause: new Error('why') });
  error.code = 'E1';
  const { name, message, cause, code, stack } = read(error);
  assert.deepEqual([name, message, cause.message, code], ['TypeError', 'no', 'why', 'E1']);
  assert.match(stack, /json\.test\.js/);
});

test('what throws when it is read costs itself alone', () => {
  const value = { good: 1, get bad() { throw new RangeError('no'); }, own: { toJSON() { throw 'no'; } } };
  assert.deepEqual(read(value), { good: 1, bad: '[unreadable: RangeError]', own: '[unreadable: string]' });
});

test('depth, number and size are bounded', () => {
  let deep = {};
  for (let i = 0; i < 100_000; i++) deep = { deep };
  assert.match(toJson(deep), /\[too deep\]/);
  const endless = { get next() { return { ...Object.getOwnPropertyDescriptors(endless), get again() { return [endless]; } }; } };
  assert.ok(toJson(endless).length > 0);
  const wide = { get a() { return Array.from({ length: 1000 }, () => Array(1000).fill(0)); } };
  assert.match(toJson(wide), /\[too many\]/);
  const large = read('é'.repeat(MAX_VALUE_CHARACTERS));
  assert.equal(large.truncated, true);
  assert.equal(large.characters, MAX_VALUE_CHARACTERS + 2);
  assert.match(large.beginning, /^"éé/);
});

test('lone surrogates become U+FFFD, in keys too, and a backslash before "ud800" does not', () => {
  assert.equal(toJson({ 'a\ud800': '\udfff b 😀', path: 'C:\\ud800' }), '{"a\ufffd":"\ufffd b 😀","path":"C:\\\\ud800"}');
  assert.equal(toJson('\\\ud800'), '"\\\\\ufffd"');
});

test('keys of Object.prototype are keys like any other', () => {
  assert.equal(toJson(JSON.parse('{"__proto__": {"x": 1}}')), '{"__proto__":{"x":1}}');
});

test('whatever is thrown has a message', () => {
  const hostile = new Proxy(new Error('x'), { get() { throw new Error('no'); } });
  assert.deepEqual(
    [new RangeError('far'), new Error(''), 'text', undefined, { a: 1 }, null].map(messageOf),
    ['RangeError: far', 'Error', 'text', 'null', '{"a":1}', 'null'],
  );
  assert.equal(messageOf(hostile), 'error');
  assert.equal(messageOf(new Error('x'.repeat(10_000))).length, 4096);
});
