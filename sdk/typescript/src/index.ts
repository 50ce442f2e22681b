/** What the package gives. */

export { Traceway } from './client.js';
export type {
  CompleteSpanOptions,
  CreateTraceOptions,
  OpenAIOptions,
  StartSpanOptions,
  TracewayOptions,
} from './client.js';
export { TracewayError } from './errors.js';
export type { EventStream, SubscribeOptions, Subscription } from './events.js';
export type { EndOptions, LlmCallOptions, SpanOptions, TraceOptions } from './given.js';
export type { Kind, KindType, LlmCall } from './kinds.js';
export type { SessionQuery, SessionsQuery, SpansQuery, TraceQuery, TracesQuery } from './queries.js';
export type { Context, Span, Trace } from './trace.js';
export type * from './views.js';
