/** The headers by which a call through the proxy joins a trace. Pure. */

import { wellFormed } from './json.js';

// The server takes header lines of 64 KiB and shortens session ids from 1 KiB on.
const MAX_SESSION_BYTES = 8192;

/** What a call through the proxy is part of. */
export interface Place {
  traceId: string;
  /** The span that makes the call. */
  spanId?: string | undefined;
  sessionId?: string | undefined;
}

/** Give the headers of a call that is part of a trace. */
export function placeHeaders({ traceId, spanId, sessionId }: Place): Record<string, string> {
  const session = sessionId === undefined ? undefined : headerText(sessionId);
  return {
    'X-Traceway-Trace-Id': traceId,
    ...(spanId === undefined ? {} : { 'X-Traceway-Parent-Span-Id': spanId }),
    ...(session === undefined ? {} : { 'X-Traceway-Session-Id': session }),
  };
}

/**
 * Give a text as a header's value: the bytes of its UTF-8, one character each.
 *
 * A header's value is bytes, and what JavaScript has for them is a string of U+0000 to U+00FF
 * (Fetch, 2.2.2; Node writes headers as Latin-1). `undefined`: no header can hold it, and the call
 * gets its session from its trace.
 */
export function headerText(text: string): string | undefined {
  const bytes = new TextEncoder().encode(wellFormed(text.trim()));
  if (bytes.length === 0 || bytes.length > MAX_SESSION_BYTES) return undefined;
  // RFC 9110, 5.5: a value has no control characters.
  if (bytes.some((byte) => byte < 0x20 || byte === 0x7f)) return undefined;
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
}
