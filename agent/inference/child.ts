// Why: the entry point of an inference child. One release lives here, so that a model that aborts, hangs
// or eats memory takes nobody with it. Trusts: the agent at the other end of descriptor 3.
// Must never: outlive the agent, open a file that no message named, or load zod (memory).
//
// It reads a frame, works, writes a frame, blocking throughout: ONNX Runtime blocks the process anyway,
// and blocking reads need no event loop between socket and runtime. End of file means the agent is gone.

import { readFileSync, readSync, writeSync, writevSync } from 'node:fs';
import { systemClock } from '../../shared/host/clock.ts';
import { nextTurn } from '../../shared/host/event-loop.ts';
import { withLinks } from '../../shared/host/linked-folder.ts';
import { residentMemory } from '../../shared/host/model-child.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { loadFailureCode, oneLine } from '../../shared/onnx/runtime-words.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import {
  type ChildMemory,
  type ChildReply,
  type ChildRequest,
  createFrameReader,
  createFrameWriter,
  type Frame,
  malformed,
  type PartNotice,
  type PutBytes,
  singlePieceBytesMax,
  type TakeBytes,
  tensorBytes,
} from './pipe.ts';
import type { OpenSession } from './session.ts';
import { openArea } from './shared-file.ts';

const pipe = 3;
/** The file for large tensors; only touched where a request offers an area of it. */
const sharedFile = 4;
/** What one read takes: several small requests at once. */
const readBytes = 64 * 1024;
/** Memory for inputs that is kept from one request to the next. */
const inputsKeptBytesMax = 4 * 1024 * 1024;
/** Outputs are garbage outside the JavaScript heap, which does not know of them: collect after this much. */
const collectEveryBytes = 32 * 1024 * 1024;

let session: OpenSession | null = null;
let uncollectedBytes = 0;

const writer = createFrameWriter();
/** Frames are written before the next is made: all small ones lie here. */
const frameMemory = Buffer.allocUnsafeSlow(singlePieceBytesMax);
const allocate = (bytes: number): Buffer =>
  bytes <= frameMemory.length ? frameMemory.subarray(0, bytes) : Buffer.allocUnsafe(bytes);

function writeReply(id: number, reply: ChildReply, tensors: Tensor[], put: PutBytes | null): void {
  const tell = (part: PartNotice): void => writePieces(writer.write(id, part, [], undefined, allocate));
  let pieces: Uint8Array[];
  try {
    const shared = put === null ? undefined : { put: (bytes: Uint8Array) => put(bytes, tell) };
    pieces = writer.write(id, reply, tensors, shared, allocate);
  } catch (error) {
    pieces = writer.write(id, refused('infer-unsupported', error), [], undefined, allocate);
  }
  writePieces(pieces);
}

let inputs = Buffer.alloc(0);
/** The same memory again and again: new pages for megabytes of input cost more than reading them. */
function inputMemory(offset: number, bytes: number): Uint8Array {
  const end = offset + bytes;
  if (end > inputsKeptBytesMax) return Buffer.allocUnsafeSlow(bytes);
  // Inputs handed out before stay where they are.
  if (end > inputs.length) inputs = Buffer.allocUnsafeSlow(Math.min(inputsKeptBytesMax, end * 2));
  return inputs.subarray(offset, end);
}

function writeSome(pieces: Uint8Array[]): number {
  try {
    const [first] = pieces;
    return pieces.length === 1 && first !== undefined ? writeSync(pipe, first) : writevSync(pipe, pieces);
  } catch (error) {
    // The agent is gone, and so are we.
    if (error instanceof Error && 'code' in error && error.code === 'EPIPE') process.exit(0);
    throw error;
  }
}

function writePieces(frame: Uint8Array[]): void {
  let pieces = frame;
  const [only] = pieces;
  if (pieces.length === 1 && only !== undefined) {
    const written = writeSome(pieces);
    if (written === only.length) return;
    pieces = [only.subarray(written)];
  }
  while (pieces.length > 0) {
    let written = writeSome(pieces);
    const left: Uint8Array[] = [];
    for (const piece of pieces) {
      if (written < piece.length) left.push(piece.subarray(written));
      written = Math.max(0, written - piece.length);
    }
    pieces = left;
  }
}

function refused(code: ErrorCode, error: unknown): ChildReply {
  return { kind: 'refused', code, detail: oneLine(error) };
}

function memory(): ChildMemory {
  // Not resourceUsage where there is /proc: after fork and exec its maximum on Linux may still be the parent's.
  const seen = residentMemory('self');
  if (seen !== null) return seen;
  const rssBytes = process.memoryUsage.rss();
  return { rssBytes, peakBytes: Math.max(rssBytes, process.resourceUsage().maxRSS * 1024) };
}

async function admit(request: ChildRequest & { kind: 'admit' }): Promise<ChildReply> {
  // Imported here: the child that serves never needs it.
  const { admitModel, opsetMaxDefault } = await import('../../shared/onnx/admission.ts');
  const admitted = admitModel(readFileSync(request.modelPath), {
    excludeOutputs: request.excludeOutputs,
    externalFiles: new Map(request.externalFiles.map(({ path, bytes }) => [path, bytes])),
    opsetMax: opsetMaxDefault,
    memoryBounds: request.memoryBounds,
  });
  if (!admitted.ok) return { kind: 'refused', ...admitted.refusal };
  const { inputs, outputs, opset } = admitted.value;
  return { kind: 'admitted', inputs, outputs, opset };
}

async function load(request: ChildRequest & { kind: 'load' }): Promise<ChildReply> {
  const { openSession } = await import('./session.ts');
  const { external, threads, providers, modelPath } = request;
  const start = systemClock.mono();
  try {
    session = await withLinks(modelPath, external, (path) =>
      openSession(path, { threads, providers, clock: systemClock }),
    );
  } catch (error) {
    return refused(loadFailureCode(oneLine(error)), error);
  }
  const { provider, skipped } = session;
  return { kind: 'loaded', loadMs: systemClock.mono() - start, provider, skipped };
}

/** What the caller gave wrong, as far as the runtime's words tell. */
const callersFault =
  /Invalid rank for input|Got invalid dimensions|Unexpected input data type|invalid feed|is missing in 'feeds'/i;

async function run(
  frame: Frame,
  outputs: string[],
  take: TakeBytes | null,
): Promise<{ reply: ChildReply; tensors: Tensor[] }> {
  if (session === null) return { reply: refused('infer-not-ready', 'no model is loaded'), tensors: [] };
  const tensors = tensorBytes(frame, take);
  try {
    const done = await session.run(tensors, outputs);
    return { reply: { kind: 'ran', runMs: done.runMs }, tensors: done.outputs };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return { reply: refused(callersFault.test(text) ? 'infer-invalid' : 'infer-failed', error), tensors: [] };
  }
}

async function answer(
  frame: Frame,
  request: ChildRequest,
  take: TakeBytes | null,
): Promise<{ reply: ChildReply; tensors: Tensor[] }> {
  switch (request.kind) {
    case 'admit':
      return { reply: await admit(request), tensors: [] };
    case 'load':
      return { reply: await load(request), tensors: [] };
    case 'memory':
      return { reply: { kind: 'memory', ...memory() }, tensors: [] };
    case 'providers': {
      const { offeredProviders } = await import('./session.ts');
      return { reply: { kind: 'providers', names: offeredProviders() }, tensors: [] };
    }
    case 'provider': {
      const { runsWith } = await import('./session.ts');
      return { reply: { kind: 'provider', usable: await runsWith(request.name) }, tensors: [] };
    }
    case 'run':
      return run(frame, request.outputs, take);
  }
}

async function collect(bytes: number): Promise<void> {
  uncollectedBytes += bytes;
  if (uncollectedBytes < collectEveryBytes) return;
  uncollectedBytes = 0;
  globalThis.gc?.();
  // What native code put off to the next turn of the event loop, which blocking reads never come to.
  await nextTurn();
}

/** The area of the request with this id, opened where something of it is large; null where none was offered. */
let opened: { id: number; area: ReturnType<typeof openArea> } | null = null;

function areaOf({ id, area }: Frame): ReturnType<typeof openArea> {
  if (opened?.id !== id) opened = { id, area: openArea(sharedFile, area, inputMemory) };
  return opened.area;
}

async function serve(frame: Frame): Promise<void> {
  const message = frame.message as ChildRequest | PartNotice;
  if (message.kind === 'part') {
    try {
      areaOf(frame)?.inputs.begin(message);
    } catch {
      // Its request may have been given up meanwhile and its place cleared; else its frame shows what is wrong.
      opened = null;
    }
    return;
  }
  const offered = frame.area !== undefined;
  const take: TakeBytes = (at, length) => {
    const area = areaOf(frame);
    if (area === null) throw malformed('a tensor in a file that was not offered');
    return area.inputs.take(at, length);
  };
  const put: PutBytes = (bytes, tell) => areaOf(frame)?.outputs.put(bytes, tell) ?? null;
  const { reply, tensors } = await answer(frame, message, offered ? take : null);
  writeReply(frame.id, reply, tensors, offered ? put : null);
  opened = null;
  let bytes = frame.body.length;
  for (const { data } of tensors) if (!Array.isArray(data)) bytes += data.byteLength;
  await collect(bytes);
}

const reader = createFrameReader();
const chunk = Buffer.allocUnsafeSlow(readBytes);
for (let count = readSync(pipe, chunk); count > 0; count = readSync(pipe, chunk)) {
  // Their tensors view the chunk: all are answered before it is written again.
  for (const frame of reader.push(chunk.subarray(0, count))) await serve(frame);
}
process.exit(0);
