/** What lists may be asked for, and the addresses that say so. Pure. */

import { timeOf } from './clock.js';
import type { KindType } from './kinds.js';
import type { SpanState } from './views.js';

interface PageQuery {
  /** The most rows of the page: 1 to 1,000; 50 by default. */
  limit?: number;
  /** Goes on behind an earlier page of the same list, which gave it. */
  cursor?: string;
}

interface ListQuery<By extends string> extends PageQuery {
  /** The search language: `cost:>0.50 since:24h`. */
  q?: string;
  sortBy?: By;
  sortOrder?: 'asc' | 'desc';
}

export type SessionsQuery = ListQuery<
  | 'last_active'
  | 'started'
  | 'cost'
  | 'tokens'
  | 'input_tokens'
  | 'output_tokens'
  | 'duration'
  | 'latency'
  | 'traces'
  | 'spans'
  | 'errors'
>;

/** Of a session's traces: up to 10,000 in a page. */
export type SessionQuery = PageQuery;

/** Of a trace's spans: up to 10,000 in a page, and as many as one answer holds. */
export type TraceQuery = PageQuery;

type RowOrder = 'started' | 'duration' | 'cost' | 'tokens';

export interface TracesQuery extends ListQuery<RowOrder> {
  /** Only traces of this session. */
  sessionId?: string;
  /** Only these traces: up to 100 ids. */
  id?: string | string[];
}

export interface SpansQuery extends ListQuery<RowOrder> {
  /** Only these spans: up to 100 ids. */
  id?: string | string[];
  traceId?: string;
  sessionId?: string;
  model?: string;
  provider?: string;
  status?: SpanState;
  /** A type; of `custom` spans also what they call themselves. */
  kind?: KindType | (string & {});
  /** A time, or how long ago: `24h`. */
  since?: Date | string;
  until?: Date | string;
  nameContains?: string;
  textContains?: string;
  /** Milliseconds. */
  durationMin?: number;
  durationMax?: number;
  tokensMin?: number;
  /** USD. */
  costMin?: number;
}

/** Write a query: `sortBy` is `sort_by`, and what is undefined is left out. */
export function queryOf(query: object): string {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value === undefined || value === null) continue;
    const text = value instanceof Date ? timeOf(value) : Array.isArray(value) ? value.join(',') : String(value);
    if (text !== undefined) pairs.set(name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), text);
  }
  const text = pairs.toString();
  return text ? `?${text}` : '';
}

// What a path cannot carry, or what is another's there (docs/api.md).
const BY_ID = new Set(['', '.', '..', 'totals', 'by-id']);

/** Give the address of a session, whatever its id is. */
export function pathOf(id: string, query: SessionQuery): string {
  if (BY_ID.has(id)) return `/api/sessions/by-id${queryOf({ id, ...query })}`;
  return `/api/sessions/${encodeURIComponent(id)}${queryOf(query)}`;
}
