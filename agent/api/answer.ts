// Why: what a route of the device's HTTP gets and gives. Trusts: nothing.
// Must never: know what a path means.

import type { IncomingMessage } from 'node:http';
import type { Result } from '../../shared/kernel/result.ts';
import type { InferenceHost } from '../inference/host.ts';
import type { BodyReader } from './body.ts';

export interface Answer {
  status: number;
  body: Uint8Array;
  headers?: Record<string, string>;
}

export interface RouteParts {
  inference: InferenceHost;
  status: () => Promise<object>;
  version: string;
  body: BodyReader;
  /** Its limit is lower: records are kept, requests are answered. */
  recordsBody: BodyReader;
  /** Absent where the agent keeps no telemetry. */
  record?: (body: Uint8Array) => Promise<Result<number>>;
  closing: () => boolean;
  mayEnter: (request: IncomingMessage) => boolean;
}

export function json(value: object, status = 200): Answer {
  return { status, body: Buffer.from(JSON.stringify(value), 'utf8') };
}
