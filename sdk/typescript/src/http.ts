/**
 * One request to the server, and when to ask again.
 *
 * Invariant: whatever goes wrong is a TracewayError. An answer is read to its end, so that its
 * connection is free again.
 */

import { TracewayError } from './errors.js';

export type Fetch = (input: string, init: RequestInit) => Promise<Response>;

/** Where the server is, and how it is asked. */
export interface Server {
  /** Without a slash at the end. */
  readonly url: string;
  readonly apiKey: string | undefined;
  readonly project: string | undefined;
  readonly timeoutMs: number;
  readonly fetch: Fetch;
}

export interface Ask {
  method: 'GET' | 'POST';
  path: string;
  body?: string;
  /** Let the request outlive the page that makes it. */
  keepalive?: boolean;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  json: unknown;
}

const MAX_RETRY_AFTER_MS = 60_000;
const FIRST_WAIT_MS = 250;
const LAST_WAIT_MS = 30_000;

/** Give the headers by which the server knows who asks. */
export function identity(server: Server): Record<string, string> {
  return {
    ...(server.apiKey === undefined ? {} : { Authorization: `Bearer ${server.apiKey}` }),
    ...(server.project === undefined ? {} : { 'X-Traceway-Project': server.project }),
  };
}

/** Say how long to wait before attempt `n + 1`: twice as long each time, anywhere in that span. */
export function backOffMs(failures: number, random: () => number = Math.random): number {
  return Math.min(LAST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(failures - 1, 16)) * (0.5 + random() / 2);
}

/** A refusal that says when to come again. */
export class Refused extends TracewayError {
  readonly retryAfterMs: number | undefined;

  constructor(
    message: string,
    told: { status: number; code: string; param: string | null; retryAfterMs: number | undefined },
  ) {
    super(message, told);
    Object.defineProperty(this, 'retryAfterMs', { value: told.retryAfterMs, enumerable: false });
  }
}

/**
 * Ask once.
 *
 * @throws TracewayError there was no answer, or it is none of success.
 */
export async function ask(server: Server, { method, path, body, keepalive, signal }: Ask): Promise<Answer> {
  // Not AbortSignal.any: in Node 20 what it makes lives as long as the signals that it was made of.
  const end = new AbortController();
  const abort = (): void => end.abort();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    abort();
  }, server.timeoutMs);
  signal?.addEventListener('abort', abort);
  if (signal?.aborted) abort();
  const headers: Record<string, string> = { ...identity(server), Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response: Response;
  let text: string;
  try {
    response = await server.fetch(server.url + path, {
      method,
      headers,
      // Nobody else gets the key, and no POST becomes a GET.
      redirect: 'manual',
      signal: end.signal,
      ...(body === undefined ? {} : { body }),
      ...(keepalive ? { keepalive } : {}),
    });
    text = await response.text();
  } catch (error) {
    throw noAnswer(server, error, { isLate, isAborted: signal?.aborted === true });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
  const json = parsed(text);
  if (response.ok && json !== undefined) return { status: response.status, json };
  throw refused(server, response, json);
}

/** Say what an answer of failure means. */
export function refused(server: Server, response: Response, json: unknown): TracewayError {
  const told = (json as { error?: Record<string, unknown> } | undefined)?.error;
  const code = textOf(told?.['code']) ?? (response.ok ? 'no_json' : `http_${response.status}`);
  let message = textOf(told?.['message']) ?? `${server.url} answers ${response.status}, and is perhaps no Traceway`;
  if (response.status === 403 && code === 'forbidden') {
    message += '. A write key hands in and reads nothing; an admin key does both';
  }
  return new Refused(message, {
    // A 200 of something else than a Traceway does not become better by waiting.
    status: response.ok ? 400 : response.status,
    code,
    param: textOf(told?.['param']) ?? null,
    retryAfterMs: retryAfterMs(response.headers.get('Retry-After')),
  });
}

/** Say why there is no answer. */
export function noAnswer(
  server: Server,
  error: unknown,
  { isLate = false, isAborted = false }: { isLate?: boolean; isAborted?: boolean },
): TracewayError {
  if (isAborted) return new TracewayError('the request was aborted', { code: 'aborted', cause: error });
  if (isLate) {
    const seconds = server.timeoutMs / 1000;
    return new TracewayError(`${server.url} did not answer in ${seconds} s`, { code: 'timeout', cause: error });
  }
  const cause = (error as { cause?: { message?: unknown } } | undefined)?.cause?.message;
  const why = textOf(cause) ?? textOf((error as Error | undefined)?.message) ?? 'no answer';
  return new TracewayError(`${server.url} cannot be reached: ${why}`, { code: 'connection', cause: error });
}

/** Ask until there is an answer or no hope of one; `attempts` times at most. */
export async function askAgain(server: Server, asked: Ask, attempts: number): Promise<Answer> {
  for (let failures = 1; ; failures++) {
    try {
      return await ask(server, asked);
    } catch (error) {
      const failure = error as TracewayError;
      // An earlier attempt was taken, and only its answer was lost.
      if (failures > 1 && failure.status === 409 && failure.code === 'already_ended') {
        return { status: 409, json: null };
      }
      if (!failure.retryable || failures >= attempts) throw failure;
      await pause(waitMs(failure, failures), asked.signal);
    }
  }
}

/** Say how long to wait after a failure: as the server says, else by the number of failures. */
export function waitMs(failure: TracewayError, failures: number): number {
  const told = failure instanceof Refused ? failure.retryAfterMs : undefined;
  return told ?? backOffMs(failures);
}

/** Wait, or until the signal is aborted. */
export function pause(ms: number, signal?: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value ? value : undefined;
}

// RFC 9110, 10.2.3: seconds, or a date.
function retryAfterMs(value: string | null): number | undefined {
  if (value === null) return undefined;
  const ms = /^\d+(\.\d+)?$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS);
}
