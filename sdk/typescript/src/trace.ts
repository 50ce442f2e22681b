/**
 * Traces and spans as an application holds them.
 *
 * Invariant: nothing here throws but what the application's own callback threw, and nothing waits
 * for the server. What is given is written down at once: it may be changed later. The first end of
 * a span is its end.
 */

import { elapsedMs, iso, momentOf } from './clock.js';
import type { Moment } from './clock.js';
import { current, within } from './context.js';
import { given } from './given.js';
import type { EndOptions, LlmCallOptions, SpanOptions, TraceOptions } from './given.js';
import { placeHeaders } from './headers.js';
import { makeSpanId, makeTraceId } from './ids.js';
import { messageOf, toJson, wellFormed } from './json.js';
import { kindJson, metadataJson, wireKind } from './kinds.js';
import type { Kind, LlmCall } from './kinds.js';
import { Item } from './queue.js';
import { readAnswer } from './usage.js';

// What the server takes; it refuses what is longer.
const USER_CHARACTERS = 512;
const TAGS = 64;
const TAG_CHARACTERS = 64;

/** Where traces and spans put what they have to say. */
export interface Sink {
  add(item: Item): boolean;
  extend(item: Item, fields: Map<string, string>): void;
  /** Headers of every request to the server, for calls through the proxy. */
  readonly headers: Record<string, string>;
  /** Whether what a callback gives back becomes its span's output. */
  readonly captureOutput: boolean;
  /** Something failed that must not reach the application. */
  fault(error: unknown): void;
}

/** A place in a trace in which spans can be opened: the trace itself, or one of its spans. */
export abstract class Context {
  abstract readonly id: string;
  abstract readonly traceId: string;
  /** @internal */
  abstract readonly trace: Trace;
  /** @internal */
  abstract readonly parent: Context | undefined;
  /** @internal */
  protected constructor(protected readonly sink: Sink) {}

  /** Open a span, run the callback in it, and end it; gives what the callback gives, or throws what it throws. */
  span<T>(name: string, callback: (span: Span) => T | PromiseLike<T>, options?: SpanOptions): Promise<T>;
  /** Open a span, which `end()` or `fail()` ends. */
  span(name: string, options?: SpanOptions): Span;
  span<T>(
    name: string,
    second?: SpanOptions | ((span: Span) => T | PromiseLike<T>),
    third?: SpanOptions,
  ): Span | Promise<T> {
    if (typeof second !== 'function') return new Span(this.sink, this.place(), name, second ?? {});
    return new Span(this.sink, this.place(), name, third ?? {}).through(second);
  }

  /** Open a span for a call of a model, run the callback in it, and end it. */
  llmCall<T>(name: string, callback: (span: Span) => T | PromiseLike<T>, options?: LlmCallOptions): Promise<T>;
  /** Open a span for a call of a model, which `end()` or `fail()` ends. */
  llmCall(name: string, options?: LlmCallOptions): Span;
  llmCall<T>(
    name: string,
    second?: LlmCallOptions | ((span: Span) => T | PromiseLike<T>),
    third?: LlmCallOptions,
  ): Span | Promise<T> {
    if (typeof second !== 'function') return new Span(this.sink, this.place(), name, ofCall(second));
    return new Span(this.sink, this.place(), name, ofCall(third)).through(second);
  }

  /** Give the headers that make a call through the proxy a part of this. */
  headers(): Record<string, string> {
    return { ...this.sink.headers, ...this.joining() };
  }

  /** @internal The headers without those that say who calls. */
  joining(): Record<string, string> {
    const place = this.place();
    const spanId = place instanceof Span ? place.id : undefined;
    return placeHeaders({ traceId: this.traceId, spanId, sessionId: this.trace.sessionId });
  }

  /** @internal */
  isOf(sink: Sink): boolean {
    return this.sink === sink;
  }

  /** Run a callback with this as the place that is current, where contexts are followed. */
  run<T>(callback: () => T): T {
    return within<Context, T>(this, callback);
  }

  /**
   * Where a new span belongs: in the innermost span that runs now, if it is a part of this.
   */
  private place(): Context {
    const innermost = current<Context>();
    for (let at = innermost; at !== undefined; at = at.parent) if (at === this) return innermost as Context;
    return this;
  }
}

/** A trace: one turn, one job, one request of the application. */
export class Trace extends Context {
  readonly id: string;
  readonly name: string;
  readonly sessionId: string | undefined;
  /** @internal */
  readonly parent = undefined;

  private readonly began: Moment;
  private isEnded = false;
  // Errors that a span of it told of already; one that is no object, only while it is the newest.
  private readonly told = new WeakSet<object>();
  private toldLast: unknown;

  /** @internal */
  constructor(sink: Sink, name: string, options: TraceOptions) {
    super(sink);
    const { id, sessionId, userId, tags, startedAt } = given(options);
    this.began = momentOf(startedAt);
    this.id = traceIdOf(id) ?? makeTraceId();
    this.name = textOf(name);
    this.sessionId = sessionId === undefined || sessionId === null ? undefined : textOf(sessionId);
    safely(sink, () => {
      const fields = new Map([['id', toJson(this.id)]]);
      put(fields, 'name', this.name || undefined);
      put(fields, 'session_id', this.sessionId);
      put(fields, 'user_id', userId === undefined || userId === null ? undefined : cut(userId, USER_CHARACTERS));
      put(fields, 'tags', Array.isArray(tags) ? tags.slice(0, TAGS).map((tag) => cut(tag, TAG_CHARACTERS)) : undefined);
      put(fields, 'started_at', iso(this.began.wallMs));
      sink.add(new Item('trace', fields));
    });
  }

  get traceId(): string {
    return this.id;
  }

  /** @internal */
  get trace(): this {
    return this;
  }

  /** The trace is over. */
  end(): void {
    if (this.isEnded) return;
    this.isEnded = true;
    safely(this.sink, () => {
      const fields = new Map([['id', toJson(this.id)]]);
      put(fields, 'ended_at', iso(this.began.wallMs + elapsedMs(this.began)));
      this.sink.add(new Item('end', fields));
    });
  }

  /** The trace is over, and failed. */
  fail(error: unknown): void {
    if (this.isEnded) return;
    // A trace has the state of its spans: a failure that none has told gets one of its own.
    if (!(isObject(error) ? this.told.has(error) : error !== undefined && this.toldLast === error)) {
      new Span(this.sink, this, this.name, {}, this.began).fail(error);
    }
    this.end();
  }

  /** @internal */
  tell(error: unknown): void {
    if (isObject(error)) this.told.add(error);
    else this.toldLast = error;
  }

  /** @internal */
  async through<T>(callback: (trace: Trace) => T | PromiseLike<T>): Promise<T> {
    try {
      const result = await within<Context, T | PromiseLike<T>>(this, () => callback(this));
      this.end();
      return result;
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }
}

/** A span: one step of a trace. */
export class Span extends Context {
  readonly id = makeSpanId();
  readonly name: string;
  /** @internal */
  readonly trace: Trace;

  private readonly began: Moment;
  private readonly opening: Item | undefined;
  private kind: Record<string, unknown> = {};
  private metadata: Record<string, unknown> = {};
  private readonly late = new Map<string, string>();
  private isEnded = false;

  /** @internal */
  constructor(
    sink: Sink,
    /** @internal */
    readonly parent: Context,
    name: string,
    options: SpanOptions,
    began?: Moment,
  ) {
    super(sink);
    this.trace = parent.trace;
    this.name = textOf(name);
    const { kind, input, metadata, startedAt } = given(options);
    this.began = began ?? momentOf(startedAt);
    this.opening = safely(sink, () => {
      const fields = new Map([['id', toJson(this.id)]]);
      put(fields, 'trace_id', this.traceId);
      put(fields, 'parent_id', parent instanceof Span ? parent.id : undefined);
      put(fields, 'name', this.name || undefined);
      put(fields, 'started_at', iso(this.began.wallMs));
      this.kind = wireKind(kind ?? 'custom');
      fields.set('kind', kindJson(this.kind));
      put(fields, 'input', input);
      if (metadata) {
        this.metadata = given(metadata);
        fields.set('metadata', metadataJson(this.metadata));
      }
      const opening = new Item('span', fields);
      sink.add(opening);
      return opening;
    });
  }

  get traceId(): string {
    return this.trace.id;
  }

  /** Say what the span was given, where it was not known when it began. */
  setInput(input: unknown): this {
    this.note(() => {
      const fields = new Map([['input', toJson(input)]]);
      if (this.opening && !this.opening.taken && !this.opening.lost) this.sink.extend(this.opening, fields);
      else this.sink.add(new Item('span', new Map([...this.names(), ...fields])));
    });
    return this;
  }

  /** Say what the span gave. */
  setOutput(output: unknown): this {
    this.note(() => this.late.set('output', toJson(output)));
    return this;
  }

  /** Say more of what the span is, as a call's model and tokens. */
  set(kind: Kind | LlmCall): this {
    this.note(() => {
      this.kind = { ...this.kind, ...wireKind(kind) };
      this.late.set('kind', kindJson(this.kind));
    });
    return this;
  }

  /** Add to the span's metadata. */
  setMetadata(metadata: Record<string, unknown>): this {
    this.note(() => {
      this.metadata = { ...this.metadata, ...given(metadata) };
      this.late.set('metadata', metadataJson(this.metadata));
    });
    return this;
  }

  /** The span is over. */
  end(options: EndOptions = {}): void {
    this.finish('completed', options);
  }

  /** The span is over, and failed. */
  fail(error: unknown, options: EndOptions = {}): void {
    if (this.isEnded) return;
    this.trace.tell(error);
    this.note(() => this.late.set('error', toJson(messageOf(error))));
    this.finish('failed', options);
  }

  /** @internal */
  async through<T>(callback: (span: Span) => T | PromiseLike<T>): Promise<T> {
    try {
      const result = await within<Context, T | PromiseLike<T>>(this, () => callback(this));
      this.note(() => this.capture(result));
      this.end();
      return result;
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }

  private finish(status: 'completed' | 'failed', options: EndOptions): void {
    if (this.isEnded) return;
    const { output, kind, metadata } = given(options);
    if (output !== undefined) this.setOutput(output);
    if (kind) this.set(kind);
    if (metadata) this.setMetadata(metadata);
    this.isEnded = true;
    safely(this.sink, () => {
      put(this.late, 'duration_ms', elapsedMs(this.began));
      const { opening } = this;
      if (opening?.taken && !opening.lost) {
        const fields = new Map([...this.names(), ...this.late]);
        this.sink.add(new Item(status === 'failed' ? 'fail' : 'complete', fields));
        return;
      }
      put(this.late, 'status', status);
      if (!opening) return;
      // Nobody has seen it yet: it is handed in ended. One that found no room finds some now, perhaps.
      if (!opening.lost) this.sink.extend(opening, this.late);
      else this.sink.add(new Item('span', new Map([...opening.fields, ...this.late]), true));
    });
  }

  private capture(result: unknown): void {
    if (this.kind['type'] === 'llm_call' || this.kind['type'] === 'embedding') {
      // What the application says itself goes before what the answer says, but for the model that answered.
      const said = new Set(Object.keys(this.kind).filter((name) => name !== 'model'));
      const read = Object.entries(wireKind(readAnswer(result))).filter(([name]) => !said.has(name));
      if (read.length > 0) this.set(Object.fromEntries(read) as LlmCall);
    }
    const isGiven = this.late.has('output') || result === undefined || isStream(result);
    if (this.sink.captureOutput && !isGiven) this.setOutput(result);
  }

  private names(): Map<string, string> {
    return new Map([
      ['id', toJson(this.id)],
      ['trace_id', toJson(this.traceId)],
    ]);
  }

  private note(write: () => void): void {
    if (!this.isEnded) safely(this.sink, write);
  }
}

/** Do what must not fail in the application's hands. */
function safely<T>(sink: Sink, work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    sink.fault(error);
    return undefined;
  }
}

function ofCall(options: LlmCallOptions | undefined): SpanOptions {
  const { input, metadata, startedAt, ...call } = given(options);
  return {
    kind: { type: 'llm_call', ...call },
    ...(input === undefined ? {} : { input }),
    ...(metadata === undefined ? {} : { metadata }),
    ...(startedAt === undefined ? {} : { startedAt }),
  };
}

function put(fields: Map<string, string>, name: string, value: unknown): void {
  if (value !== undefined) fields.set(name, toJson(value));
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? wellFormed(value) : messageOf(value);
}

function cut(value: unknown, characters: number): string {
  return wellFormed(textOf(value).slice(0, characters));
}

/** Give an id as it is on the wire; what is none is `undefined`. */
function traceIdOf(id: unknown): string | undefined {
  if (typeof id !== 'string') return undefined;
  const digits = id.replaceAll('-', '').toLowerCase();
  return /^[0-9a-f]{32}$/.test(digits) && !/^0+$/.test(digits) ? digits : undefined;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/** Whether it can be read once only, by the application. */
function isStream(value: unknown): boolean {
  if (!isObject(value)) return false;
  return (
    Symbol.asyncIterator in value ||
    (typeof ReadableStream === 'function' && value instanceof ReadableStream) ||
    (typeof Response === 'function' && value instanceof Response)
  );
}
