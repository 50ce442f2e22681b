/**
 * Any value as JSON: what JSON cannot hold is told in words, and nothing throws.
 *
 * Invariant: the text is valid JSON of well-formed Unicode, and bounded whatever the value is.
 */

/** The most characters of one value's JSON; a larger one is told of by its beginning. */
export const MAX_VALUE_CHARACTERS = 1 << 20;
const MAX_DEPTH = 64;
// Objects, arrays and scalars in one value: a graph that links to itself by getters has no end.
const MAX_NODES = 200_000;
const PREVIEW_CHARACTERS = 4096;

/** Write a value as JSON; `undefined` is `null`. */
export function toJson(value: unknown, maxCharacters = MAX_VALUE_CHARACTERS): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(plain(value, [], { nodes: 0 }));
  } catch (error) {
    // A string longer than the engine makes.
    return JSON.stringify(`[unreadable: ${wellFormed(nameOf(error))}]`);
  }
  text = wellFormedJson(text ?? 'null');
  if (text.length <= maxCharacters) return text;
  return JSON.stringify({
    truncated: true,
    characters: text.length,
    beginning: wellFormed(text.slice(0, PREVIEW_CHARACTERS)),
  });
}

/** Replace lone surrogates, which no UTF-8 holds, by U+FFFD. */
export function wellFormed(text: string): string {
  return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd');
}

// JSON.stringify writes lone surrogates, and no others, as escapes (ECMA-262, QuoteJSONString).
function wellFormedJson(text: string): string {
  if (!text.includes('\\ud')) return text;
  return text.replace(/\\(?:u(d[89a-f][0-9a-f]{2})|[^])/g, (escape, surrogate) => (surrogate ? '\ufffd' : escape));
}

interface Work {
  nodes: number;
}

function plain(value: unknown, ancestors: readonly object[], work: Work): unknown {
  switch (typeof value) {
    case 'string':
      return value;
    case 'boolean':
      return value;
    case 'number':
      return Number.isFinite(value) ? value : String(value);
    case 'undefined':
      return null;
    case 'bigint':
    case 'symbol':
      return String(value);
    case 'function':
      return `[function ${value.name}]`;
    case 'object':
      break;
  }
  if (value === null) return null;
  if (ancestors.includes(value)) return '[circular]';
  if (ancestors.length >= MAX_DEPTH) return '[too deep]';
  try {
    return structure(value, [...ancestors, value], work);
  } catch (error) {
    // A getter, a proxy or a `toJSON` that throws.
    return `[unreadable: ${nameOf(error)}]`;
  }
}

function structure(value: object, ancestors: readonly object[], work: Work): unknown {
  if (Array.isArray(value)) return listed(value, ancestors, work);
  if (value instanceof Map) {
    const entries = [...value];
    return entries.every(([key]) => typeof key === 'string')
      ? keyed(entries as [string, unknown][], ancestors, work)
      : listed(entries, ancestors, work);
  }
  if (value instanceof Set) return listed([...value], ancestors, work);
  if (value instanceof Error) return error(value, ancestors, work);
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    return `[${value.constructor.name} of ${value.byteLength} bytes]`;
  }
  const own = (value as { toJSON?: unknown }).toJSON;
  if (typeof own === 'function') return plain(own.call(value, ''), ancestors, work);
  if (value instanceof RegExp || value instanceof URL) return String(value);
  if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet) {
    return Object.prototype.toString.call(value);
  }
  return keyed(
    Object.keys(value).map((key) => [key, read(value, key)] as [string, unknown]),
    ancestors,
    work,
  );
}

function read(value: object, key: string): unknown {
  try {
    return (value as Record<string, unknown>)[key];
  } catch (error) {
    return `[unreadable: ${nameOf(error)}]`;
  }
}

function listed(values: readonly unknown[], ancestors: readonly object[], work: Work): unknown[] {
  const list: unknown[] = [];
  for (const each of values) {
    if (++work.nodes > MAX_NODES) {
      list.push('[too many]');
      break;
    }
    list.push(plain(each, ancestors, work));
  }
  return list;
}

function keyed(entries: readonly [string, unknown][], ancestors: readonly object[], work: Work): object {
  // Without a prototype, `__proto__` is a key like any other.
  const object: Record<string, unknown> = Object.create(null);
  for (const [key, each] of entries) {
    if (++work.nodes > MAX_NODES) {
      object['[too many]'] = true;
      break;
    }
    if (each !== undefined) object[key] = plain(each, ancestors, work);
  }
  return object;
}

function error(value: Error, ancestors: readonly object[], work: Work): object {
  return keyed(
    [
      ['name', read(value, 'name')],
      ['message', read(value, 'message')],
      ['stack', read(value, 'stack')],
      ['cause', read(value, 'cause')],
      ...Object.keys(value).map((key) => [key, read(value, key)] as [string, unknown]),
    ],
    ancestors,
    work,
  );
}

function nameOf(error: unknown): string {
  try {
    return error instanceof Error ? String(error.name) : typeof error;
  } catch {
    return 'error';
  }
}

/** Say in one line what an application threw. */
export function messageOf(thrown: unknown): string {
  try {
    if (thrown instanceof Error) {
      const text = String(thrown.message);
      return wellFormed(text ? `${thrown.name}: ${text}` : String(thrown.name)).slice(0, 4096);
    }
    return wellFormed(typeof thrown === 'string' ? thrown : toJson(thrown)).slice(0, 4096);
  } catch {
    return 'error';
  }
}
