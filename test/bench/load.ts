// Why: many connections at once against one server, from another process. Trusts: load-child.ts.
// Must never: call a load good in which a request failed.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

export interface LoadOptions {
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
  errors: number;
  /** Of one request, at this many connections. */
  p50Ms: number;
  p99Ms: number;
}

export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const child = fork(fileURLToPath(new URL('./load-child.js', import.meta.url)), { execArgv: [] });
  const answered = once(child, 'message') as Promise<[LoadResult]>;
  const ended = once(child, 'exit');
  child.send(options);
  const first = await Promise.race([answered, ended.then(() => null)]);
  if (first === null) throw new Error('the load generator ended without a result');
  await ended;
  const [result] = first;
  if (result.errors > 0) throw new Error(`${result.errors} requests of a load failed`);
  return result;
}
