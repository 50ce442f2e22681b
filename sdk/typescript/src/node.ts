/** The entry for Node, Deno and Bun: the same, with contexts that promises carry on. */

import { AsyncLocalStorage } from 'node:async_hooks';

import { follow } from './context.js';

follow(new AsyncLocalStorage<unknown>());

export * from './index.js';
