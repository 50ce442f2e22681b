/**
 * Ids that the client makes, so that whatever is sent twice is taken once.
 *
 * Trace ids are UUIDv7 (RFC 9562, 5.7) in 32 hex digits, span ids 8 random bytes in 16. Never zero.
 */

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
// Drawn in one go: each draw is a call into the system's source of chance.
const pool = new Uint8Array(1024);
let used = pool.length;

function random(count: number): Uint8Array {
  if (used + count > pool.length) {
    fill(pool);
    used = 0;
  }
  used += count;
  return pool.subarray(used - count, used);
}

function fill(bytes: Uint8Array<ArrayBuffer>): void {
  const { crypto } = globalThis as { crypto?: Crypto };
  if (crypto) crypto.getRandomValues(bytes);
  // Where there is none, as in React Native: ids are no secrets.
  else bytes.forEach((_, at) => (bytes[at] = Math.floor(Math.random() * 256)));
}

function hex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += HEX[byte];
  return text;
}

/** Make a trace id: 32 hex digits that grow with the time. */
export function makeTraceId(): string {
  const bytes = new Uint8Array(16);
  bytes.set(random(10), 6);
  const view = new DataView(bytes.buffer);
  const now = Date.now();
  view.setUint32(0, Math.floor(now / 0x10000));
  view.setUint16(4, now % 0x10000);
  view.setUint8(6, 0x70 | (view.getUint8(6) & 0x0f));
  view.setUint8(8, 0x80 | (view.getUint8(8) & 0x3f));
  return hex(bytes);
}

/** Make a span id: 16 hex digits. */
export function makeSpanId(): string {
  const bytes = random(8);
  return bytes.some((byte) => byte !== 0) ? hex(bytes) : makeSpanId();
}
