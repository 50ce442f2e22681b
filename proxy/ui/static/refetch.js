// Fetches a page anew: one time after the other, so that no older answer is merged over a newer one,
// and once more where something came meanwhile or the fetch failed.

import { isOver } from "./ask.js";

const REST_MS = 400; // between two fetches

// Gives what has `refresh` run `wait` ms from now: events come in batches, and one serves them all.
export function refetching(refresh, wait) {
  let timer = 0;
  let again = false;

  async function flush() {
    again = false;
    try {
      await refresh();
    } catch {
      again = !isOver(); // the server is gone; live.js says so, and this goes on when it is back
    }
    timer = again ? setTimeout(flush, REST_MS) : 0;
  }

  return () => {
    again = true;
    timer ||= setTimeout(flush, wait);
  };
}
