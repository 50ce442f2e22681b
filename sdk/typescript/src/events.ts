/**
 * Watches what happens on the server: GET /api/events, over fetch.
 *
 * Invariant: each event comes once and in order, over breaks of the connection too; where some are
 * missing, `resync` says so. Nothing is read ahead of who reads.
 */

import { TracewayError } from './errors.js';
import { backOffMs, identity, noAnswer, pause, refused, waitMs } from './http.js';
import type { Server } from './http.js';
import { SseDecoder } from './sse.js';
import type { TracewayEvent } from './views.js';

export interface SubscribeOptions {
  /** Only events of this session. */
  sessionId?: string;
  /** Only events of these types. */
  kinds?: TracewayEvent['type'][];
  /** Only events about calls of this model. */
  model?: string;
  /** Also what streams say while they run. */
  progress?: boolean;
  /** The number of an event: those behind it come first. */
  since?: number | string;
  /** Ends it. */
  signal?: AbortSignal;
  /** Gives a ticket for each connection: for a page of another origin, from the server that it comes from. */
  ticket?: () => string | Promise<string>;
  /** It is connected, also again. */
  onOpen?: () => void;
}

/** What `subscribe` with a listener gives. */
export interface Subscription {
  close(): void;
  /** It is over: closed, or, with an error, refused for good. */
  readonly closed: Promise<void>;
  /** The number of the newest event; where another subscription goes on from. */
  readonly lastEventId: string | undefined;
}

/** Events as they come, until the loop is left. */
export interface EventStream extends AsyncIterableIterator<TracewayEvent> {
  readonly lastEventId: string | undefined;
}

// The server sends a comment every 15 s.
const SILENCE_MS = 45_000;

/** Where a stream of events stands. */
export interface Position {
  lastId: string | undefined;
}

/**
 * Give events as they come, over as many connections as it takes.
 *
 * @throws TracewayError the server refuses for good: a wrong key, a wrong parameter.
 */
export async function* watch(
  server: Server,
  options: SubscribeOptions,
  position: Position,
  signal: AbortSignal,
): AsyncGenerator<TracewayEvent, void, undefined> {
  let failures = 0;
  let retryMs: number | undefined;
  while (!signal.aborted) {
    const leave = new AbortController();
    const abort = (): void => leave.abort();
    signal.addEventListener('abort', abort);
    const late = setTimeout(abort, server.timeoutMs);
    let failure: TracewayError | undefined;
    try {
      const body = await open(server, options, position, leave.signal);
      clearTimeout(late);
      const decoder = new SseDecoder();
      for await (const bytes of chunks(body, leave)) {
        for (const frame of decoder.push(bytes)) {
          position.lastId = decoder.lastId ?? position.lastId;
          failures = 0;
          if (frame.data) yield JSON.parse(frame.data) as TracewayEvent;
        }
        retryMs = decoder.retryMs ?? retryMs;
      }
    } catch (error) {
      failure = error instanceof TracewayError ? error : noAnswer(server, error, {});
      if (signal.aborted) return;
      // A ticket is good once and for a while: a new one may be better.
      if (!failure.retryable && !(failure.status === 401 && options.ticket && failures < 3)) throw failure;
    } finally {
      clearTimeout(late);
      signal.removeEventListener('abort', abort);
      abort();
    }
    failures++;
    await pause(failure ? waitMs(failure, failures) : Math.max(backOffMs(failures), retryMs ?? 0), signal);
  }
}

/** Call a listener for each event. */
export function listen(
  server: Server,
  listener: (event: TracewayEvent) => void,
  options: SubscribeOptions,
  end: AbortController,
  fault: (error: unknown) => void,
): Subscription {
  const position: Position = { lastId: undefined };
  const closed = (async () => {
    for await (const event of watch(server, options, position, end.signal)) {
      if (end.signal.aborted) return;
      try {
        listener(event);
      } catch (error) {
        // One event that the listener cannot take is not the end of all others.
        fault(error);
      }
    }
  })();
  // Who does not wait for `closed` learns of it all the same.
  closed.catch(fault);
  return {
    closed,
    close: () => end.abort(),
    get lastEventId() {
      return position.lastId;
    },
  };
}

async function open(
  server: Server,
  options: SubscribeOptions,
  position: Position,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  const query = new URLSearchParams();
  if (options.sessionId !== undefined) query.set('session', options.sessionId);
  if (options.kinds?.length) query.set('kind', options.kinds.join(','));
  if (options.model !== undefined) query.set('model', options.model);
  if (options.progress) query.set('progress', '1');
  const from = position.lastId ?? (options.since === undefined ? undefined : String(options.since));
  const headers: Record<string, string> = { Accept: 'text/event-stream' };
  if (options.ticket) {
    // No header of ours: a browser would ask the other origin first whether it takes it.
    query.set('token', await options.ticket());
    if (from !== undefined) query.set('since', from);
  } else {
    Object.assign(headers, identity(server));
    if (from !== undefined) headers['Last-Event-ID'] = from;
  }
  const text = query.toString();
  const response = await server.fetch(`${server.url}/api/events${text ? `?${text}` : ''}`, {
    headers,
    redirect: 'manual',
    cache: 'no-store',
    signal,
  });
  if (response.ok && response.body && /^text\/event-stream\b/.test(response.headers.get('Content-Type') ?? '')) {
    options.onOpen?.();
    return response.body;
  }
  const json: unknown = await response.json().catch(() => undefined);
  throw refused(server, response, json);
}

/** Give a body's bytes as they come; silence for too long is its end. */
async function* chunks(body: ReadableStream<Uint8Array>, leave: AbortController): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  try {
    for (;;) {
      const silence = setTimeout(() => leave.abort(), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
