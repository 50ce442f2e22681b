/**
 * When the process or the page goes: whoever still has something to send is told.
 *
 * Invariant: one listener each, whatever the number of clients; a client with nothing to send is
 * not held.
 */

/** Somebody with something to send. */
export interface Sender {
  /** The process would end now: send what waits, and give up in reasonable time. */
  leaveProcess(): void;
  /** The page may go at any moment: send what waits by requests that outlive it. */
  leavePage(): void;
}

interface EmitsBeforeExit {
  on?(event: 'beforeExit', listener: () => void): void;
}

const senders = new Set<Sender>();
let listens = false;

/** Tell a sender when the process or the page goes, until it is done. */
export function watchLeaving(sender: Sender): void {
  senders.add(sender);
  if (listens) return;
  listens = true;
  const { process } = globalThis as { process?: EmitsBeforeExit };
  if (typeof document !== 'undefined' && typeof addEventListener === 'function') {
    const leave = (): void => senders.forEach((one) => one.leavePage());
    addEventListener('pagehide', leave);
    // On phones, often the last that a page is told.
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'hidden') leave();
    });
  } else if (typeof process?.on === 'function') {
    process.on('beforeExit', () => senders.forEach((one) => one.leaveProcess()));
  }
}

/** The sender has nothing to send any more. */
export function doneLeaving(sender: Sender): void {
  senders.delete(sender);
}
