/**
 * Which span runs now. Node, Deno and Bun follow it through promises; browsers cannot.
 *
 * Invariant: without a store nothing is ever current, and callers name the context themselves.
 */

/** What `AsyncLocalStorage` of `node:async_hooks` gives us. */
export interface Store<T> {
  getStore(): T | undefined;
  run<R>(value: T, callback: () => R): R;
}

let store: Store<unknown> | undefined;

/** Follow contexts with a store from now on. */
export function follow(with_: Store<unknown>): void {
  store = with_;
}

/** Give the innermost context that runs; `undefined` where none does, or nobody can know. */
export function current<T>(): T | undefined {
  return store?.getStore() as T | undefined;
}

/** Run a callback with a context as the current one. */
export function within<T, R>(context: T, callback: () => R): R {
  return store ? store.run(context, callback) : callback();
}
