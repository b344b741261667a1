// Why: `POST /v2/models/NAME/stream`: samples in as they are made, an answer a window out while more come.
// Trusts: nothing in the request. Must never: hold more than a chunk, or keep a stream whose sender is gone.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type InferStream, openStream } from '../inference/streams.ts';
import type { Numbers } from '../inference/windows.ts';
import type { Answer, RouteParts } from './answer.ts';
import { findModel } from './infer-route.ts';
import { createLineReader, createRawReader, faultLine, type SampleReader, stepLine } from './samples.ts';

/** Resolves when the socket takes more, or is gone. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.once('drain', done);
    response.once('close', done);
  });
}

/** The chunks of the body; ends with a refusal where none came for too long or the agent stops. */
async function* chunksOf(
  request: IncomingMessage,
  clock: Clock,
  closing: () => boolean,
): AsyncGenerator<Result<Uint8Array>> {
  const chunks = request[Symbol.asyncIterator]();
  for (;;) {
    const idle = clock.timer(limits.streamIdleMs);
    const next = chunks.next();
    // A sender that goes away in mid-body is an error of the iterator, which nobody may be waiting for any more.
    next.catch(() => undefined);
    const first = await Promise.race([next, idle.done.then(() => null)]);
    idle.cancel();
    if (first === null) return yield refuse('body-timeout', `no samples within ${limits.streamIdleMs} ms`);
    if (first.done === true) return;
    if (closing()) return yield refuse('interrupted', 'the agent is stopping');
    yield ok(first.value as Uint8Array);
  }
}

/** Pushes samples and writes the steps. A refusal ends the stream. */
async function answer(
  samples: readonly Numbers[],
  stream: InferStream,
  response: ServerResponse,
): Promise<Result<void>> {
  for (const part of samples) {
    const steps = await stream.push(part);
    if (!steps.ok) return steps;
    for (const step of steps.value) {
      if (response.destroyed) return refuse('interrupted', 'the client went away');
      if (!response.write(stepLine(step))) await drained(response);
    }
  }
  return ok();
}

async function pump(
  request: IncomingMessage,
  response: ServerResponse,
  stream: InferStream,
  reader: SampleReader,
  parts: RouteParts,
): Promise<Result<void>> {
  for await (const chunk of chunksOf(request, parts.clock, parts.closing)) {
    if (!chunk.ok) return chunk;
    const samples = reader.take(chunk.value);
    const done = samples.ok ? await answer(samples.value, stream, response) : samples;
    if (!done.ok) return done;
  }
  const last = reader.end();
  return last.ok ? answer(last.value, stream, response) : last;
}

/** Raw numbers with `application/octet-stream`, JSON lines otherwise. */
export async function streamRoute(
  request: IncomingMessage,
  response: ServerResponse,
  name: string,
  version: string | null,
  parts: RouteParts,
): Promise<Result<Answer>> {
  if (parts.closing()) return refuse('infer-not-ready', 'the agent is stopping');
  const model = findModel(parts.inference, name, version);
  if (!model.ok) return model;
  if ((request.headers['content-encoding'] ?? 'identity') !== 'identity')
    return refuse('infer-unsupported', 'a packed stream');
  const { streams } = parts;
  if (streams.open >= limits.streamsMax)
    return refuse('infer-queue-full', `${streams.open} streams are open`);
  const stream = openStream(parts.inference, name, parts.clock);
  if (!stream.ok) return stream;
  const raw = /^application\/octet-stream\b/i.test(request.headers['content-type'] ?? '');
  const reader = raw ? createRawReader(stream.value) : createLineReader(stream.value);
  streams.open += 1;
  try {
    response.writeHead(200, {
      'content-type': 'application/x-ndjson',
      'cache-control': 'no-store',
      'x-lepton-release': model.value.releaseId,
      // The body may be left unread where the stream goes wrong.
      connection: 'close',
    });
    response.flushHeaders();
    const done = await pump(request, response, stream.value, reader, parts);
    response.end(done.ok ? undefined : faultLine(done.refusal.code, done.refusal.detail));
  } catch (thrown) {
    // A body that breaks off is an error of its iterator; anything else is ours, and half an answer must not look whole.
    const gone = request.errored !== null || response.destroyed;
    response.destroy();
    if (!gone) throw thrown;
  } finally {
    streams.open -= 1;
  }
  // The head is out: nobody sends this.
  return ok({ status: 200, body: new Uint8Array(0) });
}
