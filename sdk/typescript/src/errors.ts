/** The one error of this package. */

/** What went wrong with a request: what the server said, or that it could not be asked. */
export class TracewayError extends Error {
  override readonly name = 'TracewayError';
  /** The answer's HTTP status; null where there was no answer. */
  readonly status: number | null;
  /** What is wrong, for programs: the server's code, or `connection`, `timeout`, `aborted`, `dropped`. */
  readonly code: string;
  /** The parameter that is wrong, where the server names one. */
  readonly param: string | null;

  constructor(
    message: string,
    told: { status?: number | null; code: string; param?: string | null; cause?: unknown },
  ) {
    super(message, told.cause === undefined ? undefined : { cause: told.cause });
    this.status = told.status ?? null;
    this.code = told.code;
    this.param = told.param ?? null;
  }

  /** Whether the same request may succeed later. */
  get retryable(): boolean {
    if (this.status === null) return this.code === 'connection' || this.code === 'timeout';
    return this.status === 408 || this.status === 429 || this.status >= 500;
  }
}
