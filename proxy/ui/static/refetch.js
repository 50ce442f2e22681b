// Fetches an open page anew: one time after the other, so that no older answer is merged over a
// newer one, and once more where something came meanwhile. A server that is away is asked again,
// ever more rarely; where it refuses, that is the end (ask.js).

import { ask, Ended, isOver, refused } from "./ask.js";

const REST_MS = [400, 600, 1200, 2500, 5000]; // between two fetches; longer after each that failed
const PASSING = [408, 429]; // refusals of the moment, and not of what is asked for

export class Away extends Error {}

// Gives the text at an address, null where nothing is there any more.
export async function read(address) {
  try {
    const answer = await ask(address);
    if (answer.ok) return await answer.text();
    if (answer.status === 404) return null;
    if (answer.status < 500 && !PASSING.includes(answer.status)) refused(answer.status);
  } catch (error) {
    if (error instanceof Ended) throw error;
  }
  throw new Away();
}

// Gives what has `refresh` run `wait` ms from now: events come in batches, and one serves them all.
export function refetching(refresh, wait) {
  let timer = 0;
  let again = false;
  let failed = 0; // times in a row

  async function flush() {
    again = false;
    try {
      await refresh();
      failed = 0;
    } catch (error) {
      if (error instanceof Ended) return; // as ask.js says
      if (!(error instanceof Away)) throw error; // a mistake of ours: the next event tries again
      again = true; // live.js says that the server is gone, and this goes on when it is back
      failed += 1;
    } finally {
      const rest = REST_MS[Math.min(failed, REST_MS.length - 1)];
      timer = again && !isOver() ? setTimeout(flush, rest) : 0;
    }
  }

  return () => {
    again = true;
    timer ||= setTimeout(flush, wait);
  };
}
