/**
 * The client: traces and spans in the background, everything else by request and answer.
 *
 * Invariant: what opens and ends traces and spans (`trace`, `span`, `llmCall`, their handles) never
 * throws and never waits for the server. What is named as a request (`createTrace`, `getSessions`,
 * ...) does, and throws a TracewayError.
 */

import { timeOf } from './clock.js';
import { current } from './context.js';
import { Delivery } from './delivery.js';
import { TracewayError } from './errors.js';
import { listen, watch } from './events.js';
import type { EventStream, Position, SubscribeOptions, Subscription } from './events.js';
import type { EndOptions, SpanOptions, TraceOptions } from './given.js';
import { askAgain } from './http.js';
import type { Fetch, Server } from './http.js';
import { makeSpanId, makeTraceId } from './ids.js';
import { messageOf, toJson, wellFormed } from './json.js';
import { wireKind } from './kinds.js';
import { pathOf, queryOf } from './queries.js';
import type { SessionQuery, SessionsQuery, SpansQuery, TraceQuery, TracesQuery } from './queries.js';
import { Span, Trace } from './trace.js';
import type { Sink } from './trace.js';
import type {
  Ended,
  SessionList,
  SessionWithTraces,
  SpanList,
  SpanRow,
  SpanTaken,
  Ticket,
  TraceList,
  TraceTaken,
  TraceWithSpans,
  TracewayEvent,
} from './views.js';

export interface TracewayOptions {
  /** Where the server is; else `TRACEWAY_URL`, else `http://127.0.0.1:3000`. */
  url?: string;
  /** A key of the server's; else `TRACEWAY_API_KEY`; none where the server needs none. */
  apiKey?: string;
  /** The project, for an admin key that is let into several. */
  project?: string;
  /** Off: traces and spans are made and not sent. */
  enabled?: boolean;
  /** Whether what a callback gives back becomes its span's output; yes by default. */
  captureOutput?: boolean;
  /** How long the first item of a batch waits for others; 100 ms. */
  flushDelayMs?: number;
  /** The most items that wait to be sent; 50,000. More are dropped and counted. */
  maxQueueItems?: number;
  /** The most bytes of memory that they take; 64 MiB. */
  maxQueueBytes?: number;
  /** How long an answer may take; 30 s. */
  timeoutMs?: number;
  /** How long the end of the process is put off for what is not sent yet; 5 s. */
  exitTimeoutMs?: number;
  /** Learns what goes wrong in the background; `console.warn` by default. */
  onError?: (error: TracewayError) => void;
  /** Asks in place of the global `fetch`. */
  fetch?: Fetch;
}

/** What a trace may be created with. */
export type CreateTraceOptions = TraceOptions;

/** What a span may be started with. */
export interface StartSpanOptions extends SpanOptions {
  /** 16 hex digits; made here by default. */
  id?: string;
  /** Its trace; without it one is made with the span. */
  traceId?: string;
  parentId?: string;
  /** The session of a trace that is made with the span. */
  sessionId?: string;
}

/** What a span may be completed with. */
export interface CompleteSpanOptions extends EndOptions {
  /** Its trace, so that an end that comes before its beginning has a place. */
  traceId?: string;
  endedAt?: Date | string;
  durationMs?: number;
}

/** What an OpenAI client is made with to call through the proxy. */
export interface OpenAIOptions {
  baseURL: string;
  defaultHeaders: Record<string, string>;
  fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>;
}

const DEFAULT_URL = 'http://127.0.0.1:3000';
const ATTEMPTS = 3;
// A request under way holds the process: its end is put off by no more than this, and `exitTimeoutMs`.
const BATCH_TIMEOUT_MS = 10_000;
const FLUSH_TIMEOUT_MS = 10_000;

export class Traceway {
  /** Where the server is. */
  readonly url: string;

  private readonly server: Server;
  private readonly delivery: Delivery;
  private readonly sink: Sink;
  private readonly subscriptions = new Set<AbortController>();

  /** @throws TypeError `url` is no address, or `apiKey` can be in no header. */
  constructor(options: TracewayOptions = {}) {
    const url = new URL(options.url || environment('TRACEWAY_URL') || DEFAULT_URL);
    if (!/^https?:$/.test(url.protocol)) throw new TypeError(`url must begin with http:// or https://`);
    this.url = `${url.origin}${url.pathname}`.replace(/\/+$/, '');
    const apiKey = (options.apiKey ?? environment('TRACEWAY_API_KEY') ?? '').trim();
    if (!/^[\x21-\x7e]*$/.test(apiKey)) throw new TypeError('apiKey has characters that no key has');
    this.server = {
      url: this.url,
      apiKey: apiKey || undefined,
      project: options.project,
      timeoutMs: options.timeoutMs ?? 30_000,
      // The global one is looked up each time: tests and tools replace it.
      fetch: options.fetch ?? ((input, init) => fetch(input, init)),
    };
    const report = options.onError ?? ((error) => console.warn(`traceway: ${error.message}`));
    const batches = { ...this.server, timeoutMs: Math.min(this.server.timeoutMs, BATCH_TIMEOUT_MS) };
    this.delivery = new Delivery(batches, {
      maxItems: options.maxQueueItems ?? 50_000,
      maxBytes: options.maxQueueBytes ?? 64 << 20,
      delayMs: options.flushDelayMs ?? 100,
      exitTimeoutMs: options.exitTimeoutMs ?? 5000,
      report,
    });
    const isOn = options.enabled !== false;
    this.sink = {
      add: (item) => !isOn || this.delivery.add(item),
      extend: (item, fields) => isOn && this.delivery.extend(item, fields),
      headers: {
        ...(apiKey ? { 'X-Traceway-Api-Key': apiKey } : {}),
        ...(options.project === undefined ? {} : { 'X-Traceway-Project': options.project }),
      },
      captureOutput: options.captureOutput !== false,
      fault: (error) => this.fault(report, error),
    };
  }

  /** Open a trace, run the callback in it, and end it; gives what the callback gives, or throws what it throws. */
  trace<T>(name: string, callback: (ctx: Trace) => T | PromiseLike<T>, options?: TraceOptions): Promise<T>;
  /** Open a trace, which `end()` ends. */
  trace(name: string, options?: TraceOptions): Trace;
  trace<T>(
    name: string,
    second?: TraceOptions | ((ctx: Trace) => T | PromiseLike<T>),
    third?: TraceOptions,
  ): Trace | Promise<T> {
    if (typeof second !== 'function') return new Trace(this.sink, name, second ?? {});
    return new Trace(this.sink, name, third ?? {}).through(second);
  }

  /** The trace or span of this client that runs now; undefined where none does, and in browsers. */
  get current(): Trace | Span | undefined {
    const innermost = current<Trace | Span>();
    return innermost?.isOf(this.sink) ? innermost : undefined;
  }

  /** How many items were given up: there was no room, the server refused them, or it was too late. */
  get dropped(): number {
    return this.delivery.dropped;
  }

  /** Wait until all that was said so far is with the server, or given up; false: it took too long. */
  flush(timeoutMs = FLUSH_TIMEOUT_MS): Promise<boolean> {
    return this.delivery.flush(timeoutMs);
  }

  /** Send what waits, end all subscriptions, and take nothing any more. */
  close(timeoutMs = FLUSH_TIMEOUT_MS): Promise<boolean> {
    for (const subscription of this.subscriptions) subscription.abort();
    return this.delivery.close(timeoutMs);
  }

  /** Give the headers that make a call through the proxy a part of a trace; the current one by default. */
  headers(context: Trace | Span | undefined = this.current): Record<string, string> {
    return { ...this.sink.headers, ...context?.joining() };
  }

  /**
   * Give what `new OpenAI(...)` takes to call through the proxy.
   *
   * Each call is a part of the given trace or span, or of what runs in it when the call is made;
   * without one, of what is current then.
   */
  openaiOptions(context?: Trace | Span, upstream = 'openai'): OpenAIOptions {
    const base = `${this.url}/api/proxy/${encodeURIComponent(upstream)}/`;
    const asked = this.server.fetch as typeof fetch;
    return {
      baseURL: `${base}v1`,
      defaultHeaders: this.headers(context),
      fetch: (input, init) => {
        const url = input instanceof Request ? input.url : String(input);
        // Nobody else learns our key.
        if (!url.startsWith(base)) return asked(input, init);
        const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
        for (const [name, value] of Object.entries(this.headers(context))) headers.set(name, value);
        return asked(input, { ...init, headers });
      },
    };
  }

  /** Create a trace, and wait for the server's word. */
  async createTrace(name?: string, options: CreateTraceOptions = {}): Promise<TraceTaken> {
    const { id, sessionId, userId, tags, startedAt } = options;
    return this.post('/api/traces', {
      id: id ?? makeTraceId(),
      name,
      session_id: sessionId,
      user_id: userId,
      tags,
      started_at: timeOf(startedAt),
    });
  }

  /** End a trace, and wait for the server's word. */
  async endTrace(id: string, options: { endedAt?: Date | string } = {}): Promise<Ended> {
    const path = `/api/traces/${encodeURIComponent(id)}/end`;
    return this.end(path, id, 'ended', { ended_at: timeOf(options.endedAt) });
  }

  /** Start a span, and wait for the server's word. */
  async startSpan(name?: string, options: StartSpanOptions = {}): Promise<SpanTaken> {
    const { id, traceId, parentId, sessionId, kind, input, metadata, startedAt } = options;
    return this.post('/api/spans', {
      id: id ?? makeSpanId(),
      // Made here: sent twice, it is still one.
      trace_id: traceId ?? makeTraceId(),
      parent_id: parentId,
      session_id: sessionId,
      name,
      kind: kind === undefined ? undefined : wireKind(kind),
      input,
      metadata,
      started_at: timeOf(startedAt),
    });
  }

  /** Complete a span, and wait for the server's word. */
  async completeSpan(id: string, options: CompleteSpanOptions = {}): Promise<Ended> {
    const path = `/api/spans/${encodeURIComponent(id)}/complete`;
    return this.end(path, id, 'completed', endFields(options));
  }

  /** Say that a span failed, and wait for the server's word. */
  async failSpan(id: string, error: unknown, options: CompleteSpanOptions = {}): Promise<Ended> {
    const path = `/api/spans/${encodeURIComponent(id)}/fail`;
    return this.end(path, id, 'failed', { error: messageOf(error), ...endFields(options) });
  }

  /** Give a page of sessions, the most recently active first. */
  getSessions(query: SessionsQuery = {}): Promise<SessionList> {
    return this.get(`/api/sessions${queryOf(query)}`);
  }

  /** Give a session with its traces, oldest first. */
  getSession(id: string, query: SessionQuery = {}): Promise<SessionWithTraces> {
    return this.get(pathOf(id, query));
  }

  /** Give a page of traces, newest first. */
  getTraces(query: TracesQuery = {}): Promise<TraceList> {
    return this.get(`/api/traces${queryOf(query)}`);
  }

  /** Give a trace with a page of its spans, oldest first; `cursor` goes on behind them. */
  getTrace(id: string, query: TraceQuery = {}): Promise<TraceWithSpans> {
    return this.get(`/api/traces/${encodeURIComponent(id)}${queryOf(query)}`);
  }

  /** Give a page of spans, newest first, in brief. */
  getSpans(query: SpansQuery = {}): Promise<SpanList> {
    return this.get(`/api/spans${queryOf(query)}`);
  }

  /** Give a span with all of its input and output. */
  getSpan(id: string): Promise<SpanRow> {
    return this.get(`/api/spans/${encodeURIComponent(id)}`);
  }

  /** Give a ticket with which a page of another origin may watch; good once, for a while. */
  createTicket(): Promise<Ticket> {
    return this.post('/api/events/tickets', undefined);
  }

  /** Call a listener for each event, until it is closed. */
  subscribe(listener: (event: TracewayEvent) => void, options?: SubscribeOptions): Subscription;
  /** Give events as they come, until the loop over them is left. */
  subscribe(options?: SubscribeOptions): EventStream;
  subscribe(
    first?: ((event: TracewayEvent) => void) | SubscribeOptions,
    second: SubscribeOptions = {},
  ): Subscription | EventStream {
    const end = new AbortController();
    const options = (typeof first === 'function' ? second : first) ?? {};
    options.signal?.addEventListener('abort', () => end.abort(), { signal: end.signal });
    if (options.signal?.aborted) end.abort();
    this.subscriptions.add(end);
    end.signal.addEventListener('abort', () => this.subscriptions.delete(end));
    if (typeof first === 'function') {
      const subscription = listen(this.server, first, options, end, this.sink.fault);
      const over = (): void => end.abort();
      subscription.closed.then(over, over);
      return subscription;
    }
    const position: Position = { lastId: undefined };
    return streamOf(watch(this.server, options, position, end.signal), position, end);
  }

  private async get<T>(path: string): Promise<T> {
    return (await askAgain(this.server, { method: 'GET', path }, ATTEMPTS)).json as T;
  }

  private async post<T>(path: string, fields: Record<string, unknown> | undefined): Promise<T> {
    const body = fields === undefined ? {} : { body: bodyOf(fields) };
    return (await askAgain(this.server, { method: 'POST', path, ...body }, ATTEMPTS)).json as T;
  }

  private async end(path: string, id: string, status: string, fields: Record<string, unknown>): Promise<Ended> {
    return (await this.post<Ended | null>(path, fields)) ?? { id, trace_id: null, status };
  }

  private fault(report: (error: TracewayError) => void, error: unknown): void {
    try {
      report(
        error instanceof TracewayError
          ? error
          : new TracewayError(messageOf(error), { code: 'internal', cause: error }),
      );
    } catch {
      // The application's own function: its failure is not ours to throw.
    }
  }
}

function endFields(options: CompleteSpanOptions): Record<string, unknown> {
  const { output, kind, metadata, traceId, endedAt, durationMs } = options;
  return {
    output,
    // Fields without a type are those of a model call.
    kind: kind === undefined ? undefined : { type: 'llm_call', ...wireKind(kind) },
    metadata,
    trace_id: traceId,
    ended_at: timeOf(endedAt),
    duration_ms: durationMs,
  };
}

function bodyOf(fields: Record<string, unknown>): string {
  const known = Object.entries(fields).filter(([, value]) => value !== undefined);
  return `{${known.map(([name, value]) => `${JSON.stringify(name)}:${toJson(value)}`).join(',')}}`;
}

function streamOf(
  events: AsyncGenerator<TracewayEvent, void, undefined>,
  position: Position,
  end: AbortController,
): EventStream {
  return {
    next: () => events.next(),
    // The connection is left at once, also while the next event is awaited.
    return: async () => {
      end.abort();
      events.return().catch(() => undefined);
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
    get lastEventId() {
      return position.lastId;
    },
  };
}

function environment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  const value = process?.env?.[name];
  return value === undefined ? undefined : wellFormed(value);
}
