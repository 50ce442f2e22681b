/**
 * Sends what waits in the queue, in the background, by POST /api/batch.
 *
 * Invariant: it never throws and never blocks its caller. Each item that was taken in is settled
 * once: the server has it, or it is counted in `dropped`. One request is under way at a time, so
 * that items arrive in order; all carry ids of ours, so that what is sent twice is taken once.
 */

import { TracewayError } from './errors.js';
import { ask, waitMs } from './http.js';
import type { Server } from './http.js';
import { doneLeaving, watchLeaving } from './leaving.js';
import type { Sender } from './leaving.js';
import { Queue, batchOf } from './queue.js';
import type { Batch, Bounds, Item } from './queue.js';

export interface DeliveryOptions extends Bounds {
  /** How long the first item of a batch waits for others. */
  delayMs: number;
  /** How long the end of the process may be put off. */
  exitTimeoutMs: number;
  report(error: TracewayError): void;
}

interface Result {
  status: number;
  error?: { code?: string; message?: string; param?: string | null };
}

// Browsers let requests of 64 KiB in all outlive a page (Fetch, 4.6, "inflight keepalive bytes").
const KEEPALIVE_BYTES = 60_000;
// Somebody waits for it: a flush does not sit out a long wait between attempts.
const FLUSH_WAIT_MS = 1000;

export class Delivery implements Sender {
  /** Items that were given up: there was no room, or the server refused them, or it was too late. */
  dropped = 0;

  private readonly queue: Queue;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private timerIsUrgent = false;
  private sending: Item[] = [];
  private isSending = false;
  private isClosed = false;
  private hasReportedDrops = false;
  private hasReportedOutage = false;
  private failures = 0;
  private added = 0;
  private settled = 0;
  private readonly requests = new Set<AbortController>();
  private readonly flushes = new Set<() => void>();
  private wake: (() => void) | undefined;

  constructor(
    private readonly server: Server,
    private readonly options: DeliveryOptions,
  ) {
    this.queue = new Queue(options);
  }

  /** Take an item in; say whether there was room. */
  add(item: Item): boolean {
    if (this.isClosed || !this.queue.add(item)) {
      if (!item.isAgain) this.drop([item], this.isClosed ? 'the client is closed' : 'too much waits to be sent');
      return false;
    }
    if (item.isAgain) this.dropped--;
    this.added++;
    watchLeaving(this);
    this.schedule();
    return true;
  }

  /** Add what came to be known of an item that waits. */
  extend(item: Item, fields: Map<string, string>): void {
    if (!this.queue.extend(item, fields)) this.count(1, 'too much waits to be sent');
  }

  /** Wait until all that was taken in so far is settled; say whether it is. */
  flush(timeoutMs: number): Promise<boolean> {
    const target = this.added;
    if (this.settled >= target) return Promise.resolve(true);
    return new Promise((resolve) => {
      const look = (): void => {
        if (this.settled >= target) finish();
      };
      const finish = (): void => {
        clearTimeout(timer);
        this.flushes.delete(look);
        resolve(this.settled >= target);
      };
      // This timer alone holds the process.
      const timer = setTimeout(finish, timeoutMs);
      this.flushes.add(look);
      this.wake?.();
      void this.send();
    });
  }

  /** Send what waits, then take nothing any more. */
  async close(timeoutMs: number): Promise<boolean> {
    this.isClosed = true;
    const isSent = await this.flush(timeoutMs);
    this.giveUp('the client was closed');
    return isSent;
  }

  leaveProcess(): void {
    void this.flush(this.options.exitTimeoutMs).then((isSent) => {
      if (!isSent) this.giveUp('the process ended');
    });
  }

  leavePage(): void {
    // What is under way ends with the page; sent again, it is taken once.
    if (this.sending.length > 0) {
      const again = batchOf(this.sending.filter((item) => item.fields.size > 0));
      if (again.body.length < KEEPALIVE_BYTES / 2) this.post(again, true).catch(() => undefined);
    }
    if (this.queue.length === 0) return;
    const batch = this.queue.take(KEEPALIVE_BYTES);
    this.post(batch, true).then(
      (results) => this.settle(batch.items, results),
      () => {
        // The page is still here, or nobody needs to know.
        this.queue.putBack(batch.items);
        this.schedule();
      },
    );
    // Beyond what may outlive the page: perhaps there is time.
    if (this.queue.length > 0) void this.send();
  }

  private schedule(): void {
    if (this.isSending) return;
    const isUrgent = this.queue.isFull || this.flushes.size > 0;
    if (this.timer !== undefined) {
      // One that is due is not put off, however fast more comes.
      if (!isUrgent || this.timerIsUrgent) return;
      clearTimeout(this.timer);
    }
    this.timerIsUrgent = isUrgent;
    // Never at once: writing a batch is not the work of whoever added to it.
    this.timer = setTimeout(() => void this.send(), isUrgent ? 0 : this.options.delayMs);
    unref(this.timer);
  }

  private async send(): Promise<void> {
    if (this.isSending) return;
    clearTimeout(this.timer);
    this.timer = undefined;
    this.isSending = true;
    while (this.queue.length > 0) {
      const batch = this.queue.take();
      this.sending = batch.items;
      await this.deliver(batch);
      this.sending = [];
      if (!this.queue.isFull && this.flushes.size === 0) break;
    }
    this.isSending = false;
    if (this.queue.length > 0) this.schedule();
  }

  private async deliver(batch: Batch): Promise<void> {
    for (;;) {
      try {
        this.settle(batch.items, await this.post(batch));
        this.failures = 0;
        this.hasReportedOutage = false;
        return;
      } catch (error) {
        const failure = error as TracewayError;
        if (failure.status === 413 && batch.items.length > 1) {
          const half = batch.items.length >> 1;
          await this.deliver(batchOf(batch.items.slice(0, half)));
          await this.deliver(batchOf(batch.items.slice(half)));
          return;
        }
        const waits = waitMs(failure, ++this.failures);
        if (!failure.retryable) this.lose(batch.items, failure.message, failure);
        else if (!this.hasReportedOutage) {
          this.hasReportedOutage = true;
          this.report(failure);
        }
        if (failure.status !== 413) await this.pause(waits);
        // It was given up meanwhile, or refused.
        if (batch.items.every((item) => item.lost)) return;
      }
    }
  }

  private async post(batch: Batch, keepalive = false): Promise<Result[]> {
    const end = new AbortController();
    this.requests.add(end);
    const asked = { method: 'POST', path: '/api/batch', body: batch.body, keepalive, signal: end.signal } as const;
    const answer = await ask(this.server, asked).finally(() => this.requests.delete(end));
    const results = (answer.json as { results?: unknown } | null)?.results;
    if (!Array.isArray(results) || results.length !== batch.items.length) {
      const message = `${this.server.url} does not answer as a Traceway server does`;
      throw new TracewayError(message, { status: 400, code: 'no_traceway' });
    }
    return results as Result[];
  }

  private settle(items: Item[], results: Result[]): void {
    const refused: Item[] = [];
    let refusal: Result | undefined;
    items.forEach((item, at) => {
      if (item.lost) return;
      const result = results[at] as Result;
      // It was there already: from an attempt whose answer was lost.
      const isKnown = result.status === 409 && result.error?.code !== 'conflict';
      if (result.status < 300 || isKnown) {
        item.fields.clear();
        this.settled++;
      } else {
        refused.push(item);
        refusal ??= result;
      }
    });
    const why = refusal?.error?.message ?? `the server answered ${refusal?.status}`;
    this.lose(refused, why, undefined, refusal);
  }

  private giveUp(why: string): void {
    this.lose([...this.sending, ...this.queue.clear()], why);
    for (const end of this.requests) end.abort();
    this.wake?.();
  }

  /** Items that were taken in are lost. */
  private lose(items: Item[], why: string, failure?: TracewayError, refusal?: Result): void {
    const left = items.filter((item) => !item.lost);
    this.settled += left.length;
    this.drop(left, why, failure, refusal);
    this.look();
  }

  private drop(items: Item[], why: string, failure?: TracewayError, refusal?: Result): void {
    for (const item of items) item.lost = true;
    this.count(items.length, why, failure, refusal);
  }

  private count(items: number, why: string, failure?: TracewayError, refusal?: Result): void {
    this.dropped += items;
    if (items === 0 || this.hasReportedDrops) return;
    this.hasReportedDrops = true;
    this.report(
      new TracewayError(`items are dropped: ${why} (said once; \`dropped\` counts them)`, {
        status: failure?.status ?? refusal?.status ?? null,
        code: failure?.code ?? refusal?.error?.code ?? 'dropped',
        param: failure?.param ?? refusal?.error?.param ?? null,
        cause: failure,
      }),
    );
  }

  private report(error: TracewayError): void {
    try {
      this.options.report(error);
    } catch {
      // The application's own function: its failure is not ours to throw.
    }
  }

  private look(): void {
    if (this.settled === this.added) doneLeaving(this);
    for (const look of [...this.flushes]) look();
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, this.flushes.size > 0 ? Math.min(ms, FLUSH_WAIT_MS) : ms);
      // The process may end meanwhile: `leaveProcess` is told.
      unref(timer);
      this.wake = done;
    });
  }
}

function unref(timer: ReturnType<typeof setTimeout>): void {
  (timer as { unref?(): void }).unref?.();
}
