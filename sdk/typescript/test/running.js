/** A client and its scripted server, for one test. */

import { Traceway } from 'traceway';

import { FakeServer } from './server.js';

/** Start a server and a client of it; both end with the test. */
export async function running(test, options = {}) {
  const server = await FakeServer.start();
  const errors = [];
  const tw = new Traceway({
    url: server.url,
    apiKey: 'tw_sk_test',
    flushDelayMs: 5,
    onError: (error) => errors.push(error),
    ...options,
  });
  test.after(async () => {
    await tw.close(0);
    await server.stop();
  });
  return { server, tw, errors };
}
