/** The API's answers, as they come: docs/api.md says what each field means. Unknown is null. */

/** A time: ISO 8601 in UTC, with `Z`. */
export type Time = string;

export type TraceStatus = 'running' | 'completed' | 'failed' | 'cancelled';
export type SpanState = TraceStatus | 'truncated' | 'interrupted';

export interface Session {
  id: string;
  name: string | null;
  starred: boolean;
  user_id: string | null;
  source: string;
  trace_count: number;
  span_count: number;
  input_tokens: number | null;
  output_tokens: number | null;
  total_tokens: number | null;
  cached_input_tokens: number | null;
  reasoning_tokens: number | null;
  /** USD. */
  cost: number | null;
  /** Calls whose cost is unknown, and in no sum. */
  unpriced_count: number;
  /** Calls whose tokens are estimated. */
  estimated_count: number;
  sent_bytes: number;
  stored_bytes: number;
  failed_trace_count: number;
  error_rate: number;
  started_at: Time;
  ended_at: Time | null;
  last_active_at: Time;
  duration_ms: number | null;
  avg_latency_ms: number | null;
  models: string[];
  first_input: string | null;
  last_output: string | null;
  last_error: string | null;
  status: TraceStatus;
}

export interface Budget {
  limit_usd: number;
  spent_usd: number;
  reserved_usd: number;
}

/** A session, and its traces, oldest first. */
export interface SessionWithTraces extends Session {
  budget: Budget | null;
  traces: TraceRow[];
  cursor?: string;
}

/** A trace with the sums over its spans. */
export interface TraceRow {
  id: string;
  session_id: string | null;
  session_source: string | null;
  session_confidence: 'named' | 'adopted' | 'inferred' | null;
  name: string;
  user_id: string | null;
  tags: string[];
  /** The trace that its call named, which is of another session. */
  linked_trace_id: string | null;
  status: TraceStatus;
  started_at: Time;
  ended_at: Time | null;
  duration_ms: number | null;
  span_count: number;
  input_tokens: number | null;
  output_tokens: number | null;
  total_tokens: number | null;
  cost: number | null;
  unpriced_count: number;
  estimated_count: number;
  sent_bytes: number;
  stored_bytes: number;
  input: string | null;
  output: string | null;
  error: string | null;
}

/** A trace, and its spans, oldest first, with inputs and outputs in brief. */
export interface TraceWithSpans extends TraceRow {
  spans: SpanRow[];
  cursor?: string;
}

/** What a span is. */
export interface SpanKind {
  type: string;
  model: string | null;
  model_requested: string | null;
  provider: string | null;
  service_tier: string | null;
  input_tokens: number | null;
  output_tokens: number | null;
  cached_input_tokens: number | null;
  cache_write_tokens: number | null;
  reasoning_tokens: number | null;
  audio_input_tokens: number | null;
  audio_output_tokens: number | null;
  image_input_tokens: number | null;
  image_output_tokens: number | null;
  usage_source: 'provider' | 'injected' | 'estimated' | 'reported' | 'missing' | null;
  cost: number | null;
  cost_status: 'priced' | 'unpriced' | 'free' | null;
  price_version: string | null;
  /** What a `custom` span calls itself. */
  kind: string | null;
  /** What the application said of the kind beyond these fields. */
  attributes: Record<string, unknown> | null;
}

/** How a span ended that did not complete. */
export interface SpanEnd {
  error: string | null;
  ended_by: string | null;
  phase: string | null;
}

/** What is known of a body; `size` is in bytes. */
export interface SpanBody {
  size: number;
  sha256: string | null;
  content_type: string | null;
  content_encoding: string | null;
  stored: boolean;
  assembled: boolean;
  truncated: boolean;
  redacted: boolean;
}

export interface SpanMetadata {
  duration_ms: number | null;
  first_byte_ms: number | null;
  ttft_ms: number | null;
  total_tokens: number | null;
  upstream: string | null;
  operation: string | null;
  method: string | null;
  path: string | null;
  query: string | null;
  http_status: number | null;
  response_id: string | null;
  settled_by: string | null;
  request: SpanBody | null;
  response: SpanBody | null;
  request_headers: [string, string][] | null;
  response_headers: [string, string][] | null;
  notes: string[];
  /** The application's own metadata. */
  custom: Record<string, unknown> | null;
  /** The proxied call that this span saw too, and that counts instead of it. */
  same_call: string | null;
  /** Whether an application handed it in. */
  handed_in: boolean;
  /** The trace that the call's answer named, before it joined this one. */
  moved_from: string | null;
}

export interface SpanRow {
  id: string;
  trace_id: string;
  parent_id: string | null;
  name: string;
  kind: SpanKind;
  /** `"running"`, `"completed"`, or an object with the state as its only key. */
  status: 'running' | 'completed' | Partial<Record<Exclude<SpanState, 'running' | 'completed'>, SpanEnd>>;
  started_at: Time;
  ended_at: Time | null;
  input: unknown;
  output: unknown;
  metadata: SpanMetadata;
}

interface Page {
  /** Rows of this page. */
  count: number;
  /** Whether only the newest rows were looked at. */
  truncated?: boolean;
  /** Goes on behind this page; absent at the end. */
  cursor?: string;
}

export interface SessionList extends Page {
  sessions: Session[];
}

export interface TraceList extends Page {
  traces: TraceRow[];
}

export interface SpanList extends Page {
  spans: SpanRow[];
}

/** What the server says of a trace that was handed in. */
export interface TraceTaken {
  id: string;
  session_id: string | null;
  status: string;
  /** Whether it was not there before. */
  created: boolean;
}

/** What the server says of a span that was handed in. */
export interface SpanTaken {
  id: string;
  trace_id: string | null;
  status: string;
  created: boolean;
}

/** What the server says of an end; `waiting`: it knows nothing of what ends, and waits for it. */
export interface Ended {
  id: string;
  trace_id?: string | null;
  status: string;
}

/** What `POST /api/events/tickets` gives: a ticket for one stream of events. */
export interface Ticket {
  token: string;
  expires_in_s: number;
}

/** An event: docs/events.md says when each is told. */
export type TracewayEvent =
  | {
      type: 'trace_created' | 'trace_updated';
      at: Time;
      trace_id: string;
      session_id: string | null;
      trace: TraceRow | null;
    }
  | { type: 'trace_deleted'; at: Time; trace_id: string; session_id: string | null }
  | {
      type: 'span_created' | 'span_completed' | 'span_failed';
      at: Time;
      trace_id: string;
      span_id: string;
      session_id: string | null;
      model: string | null;
      status: string;
    }
  | { type: 'session_updated'; at: Time; session_id: string; session: Session | null }
  | {
      type: 'span_progress';
      trace_id: string;
      span_id: string;
      session_id: string | null;
      offset: number;
      text: string;
    }
  | { type: 'resync'; at?: Time };
