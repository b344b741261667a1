// Why: what a route of the device's HTTP gets and gives. Trusts: nothing.
// Must never: know what a path means.

import type { IncomingHttpHeaders } from 'node:http';
import type { LoopDelay } from '../../shared/host/loop-delay.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { BinaryHead, IsBinary } from '../../shared/wire/oip-binary.ts';
import type { InferenceHost } from '../inference/host.ts';
import type { InputAhead } from '../inference/process.ts';
import type { Sequences } from '../inference/sequences.ts';
import type { Cancellation } from '../inference/served.ts';
import type { AgentStatus } from '../status.ts';
import type { DeferAnswer } from '../update/deferral.ts';
import type { Body, BodyReader } from './body.ts';

export interface Answer {
  status: number;
  /** In pieces where they lie in different places: large ones are sent without being joined. */
  body: Uint8Array | readonly Uint8Array[];
  headers?: Record<string, string>;
}

/** A request for inference, whoever reads it off its connection. */
export interface Call {
  headers: IncomingHttpHeaders;
  /** The whole body, as of `BodyReader.read`. */
  body(alignAt: number): Result<Body> | Promise<Result<Body>>;
  /** Aborted when the client went away. */
  departure(): Cancellation;
  /** Its body, or what of it stands behind the JSON, may be in the model's process already. */
  ahead?: InputAhead | undefined;
  /** Of whoever asks, where it is known that it is the same client as before. */
  memory?: ClientMemory | undefined;
}

/** What a client asked last: it often asks the same of other numbers. */
export interface ClientMemory {
  last: { head: BinaryHead; isBinary: IsBinary } | null;
}

export interface RouteParts {
  inference: InferenceHost;
  sequences: Sequences;
  /** Streams over HTTP that are open now. */
  streams: { open: number };
  status: () => Promise<AgentStatus>;
  /** What `GET /v2` says of this server. */
  server: { name: string; version: string; extensions: readonly string[] };
  body: BodyReader;
  /** Its limit is lower: records are kept, requests are answered. */
  recordsBody: BodyReader;
  /** Absent where the agent keeps no telemetry. */
  record?: (body: Uint8Array) => Promise<Result<number>>;
  /** Absent where the agent updates nothing. */
  defer?: (forMs: number | null) => Promise<Result<DeferAnswer>>;
  loopDelay: LoopDelay;
  clock: Clock;
  closing: () => boolean;
  mayEnter: (headers: IncomingHttpHeaders) => boolean;
}

export function json(value: object, status = 200): Answer {
  return { status, body: Buffer.from(JSON.stringify(value), 'utf8') };
}
