/** What an application gives when it opens and ends traces and spans. */

import type { Kind, KindType, LlmCall } from './kinds.js';

/** What a trace may be opened with. */
export interface TraceOptions {
  /** The session that the trace is a part of: free text. */
  sessionId?: string;
  userId?: string;
  tags?: string[];
  /** To go on with a trace that another process began: 32 hex digits, or a UUID. */
  id?: string;
  startedAt?: Date | string;
}

/** What a span may be opened with. */
export interface SpanOptions {
  /** What it is; `custom` by default. */
  kind?: Kind | KindType;
  input?: unknown;
  metadata?: Record<string, unknown>;
  startedAt?: Date | string;
}

/** What a call of a model may be opened with. */
export interface LlmCallOptions extends LlmCall, Omit<SpanOptions, 'kind'> {}

/** What a span may be ended with. */
export interface EndOptions {
  output?: unknown;
  /** Fields that became known meanwhile, as tokens. */
  kind?: Kind | LlmCall;
  metadata?: Record<string, unknown>;
}

/** Read options once, whatever they are: what cannot be read is not given. */
export function given<T extends object>(options: T | null | undefined): Partial<T> {
  try {
    return { ...options };
  } catch {
    return {};
  }
}
