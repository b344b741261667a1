// Why: requests from another process: one at a time for the latency, many connections at once for the throughput.
// Trusts: load-child.ts. Must never: call a load good in which a request failed.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

export interface LoadCommand {
  url: string;
  bodyBase64: string;
  headers?: Record<string, string>;
  /** Kept alive, each with one request under way. */
  connections: number;
  warmUpMs: number;
  durationMs: number;
}

export interface LoadResult {
  requestsPerSecond: number;
  /** Of one request, at this many connections. */
  p50Ms: number;
  p99Ms: number;
}

export interface LoadProcess {
  load(command: LoadCommand): Promise<LoadResult>;
  /** One request more on the first connection of the last load; how long it took, in milliseconds. */
  once(): Promise<number>;
  close(): Promise<void>;
}

export function startLoad(): LoadProcess {
  const child = fork(fileURLToPath(new URL('./load-child.js', import.meta.url)), { execArgv: [] });
  const ended = once(child, 'exit').then(() => ({ failed: 'the load generator ended' }));
  const ask = async <T>(command: LoadCommand | 'once'): Promise<T> => {
    const answered = once(child, 'message') as Promise<[{ result: T } | { failed: string }]>;
    child.send(command);
    const answer = await Promise.race([answered.then(([message]) => message), ended]);
    if ('failed' in answer) throw new Error(answer.failed);
    return answer.result;
  };
  return {
    load: (command) => ask<LoadResult>(command),
    once: () => ask<number>('once'),
    close: async () => {
      child.kill();
      await ended;
    },
  };
}
