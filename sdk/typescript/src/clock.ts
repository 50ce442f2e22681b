/**
 * Times of traces and spans: starts by the wall clock, durations by the monotonic one.
 *
 * Invariant: a duration is never negative, and no step of the wall clock shows in it.
 */

/** A moment on both clocks, in milliseconds. */
export interface Moment {
  readonly wallMs: number;
  readonly monotonicMs: number;
}

// The wall clock gives whole milliseconds; spans that begin in one still have an order.
const STEP_MS = 20;
let anchor: Moment = { wallMs: Date.now(), monotonicMs: performance.now() };

/** Give this moment. */
export function now(): Moment {
  const monotonicMs = performance.now();
  let wallMs = anchor.wallMs + (monotonicMs - anchor.monotonicMs);
  const told = Date.now();
  if (Math.abs(told - wallMs) > STEP_MS) {
    // It was set, or the machine slept.
    anchor = { wallMs: told, monotonicMs };
    wallMs = told;
  }
  return { wallMs, monotonicMs };
}

/** Give the moment that an application names; this one where it names none that there is. */
export function momentOf(value: Date | string | undefined): Moment {
  const told = value instanceof Date ? value.getTime() : typeof value === 'string' ? Date.parse(value) : NaN;
  const { wallMs, monotonicMs } = now();
  if (!(Math.abs(told) <= 8.64e15)) return { wallMs, monotonicMs };
  return { wallMs: told, monotonicMs: monotonicMs - (wallMs - told) };
}

/** Give the milliseconds since a moment, to the microsecond. */
export function elapsedMs(since: Moment): number {
  return Math.max(0, Math.round((performance.now() - since.monotonicMs) * 1000) / 1000);
}

/** Write a wall clock's time as ISO 8601 in UTC, to the microsecond. */
export function iso(wallMs: number): string {
  const us = Math.round(wallMs * 1000);
  const text = new Date(Math.floor(us / 1000)).toISOString();
  return `${text.slice(0, -1)}${String(us - 1000 * Math.floor(us / 1000)).padStart(3, '0')}Z`;
}

/** Read a time that an application gives; what is none is `undefined`. */
export function timeOf(value: Date | string | number | undefined): string | undefined {
  if (typeof value === 'string') return value;
  const ms = value instanceof Date ? value.getTime() : value;
  return typeof ms === 'number' && Math.abs(ms) <= 8.64e15 ? iso(ms) : undefined;
}
