// Why: the entry point of an inference child. One release lives here, so that a model that aborts, hangs
// or eats memory takes nobody with it. Trusts: the agent at the other end of descriptor 3.
// Must never: outlive the agent, open a file that no message named, or load zod (memory).
//
// It reads a frame, works, writes a frame, blocking throughout: ONNX Runtime blocks the process anyway,
// and blocking reads need no event loop between socket and runtime. End of file means the agent is gone.

import {
  copyFileSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writevSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { systemClock } from '../../shared/host/clock.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import {
  type ChildMemory,
  type ChildReply,
  type ChildRequest,
  createFrameReader,
  cutBody,
  encodePipeFrame,
  type Frame,
} from './pipe.ts';
import type { OpenSession } from './session.ts';

const pipe = 3;
/** Outputs are garbage outside the JavaScript heap, which does not know of them: collect after this much. */
const collectEveryBytes = 32 * 1024 * 1024;

let session: OpenSession | null = null;
let uncollectedBytes = 0;

/** Null at the end of file. */
function readFrame(reader: ReturnType<typeof createFrameReader>): Frame | null {
  for (;;) {
    const count = readSync(pipe, reader.target());
    if (count === 0) return null;
    const frame = reader.advance(count);
    if (frame !== null) return frame;
  }
}

function encodeReply(id: number, reply: ChildReply, tensors: Tensor[]): Uint8Array[] {
  try {
    return encodePipeFrame(id, reply, tensors);
  } catch (error) {
    return encodePipeFrame(id, refused('infer-unsupported', error), []);
  }
}

function writePieces(frame: Uint8Array[]): void {
  let pieces = frame;
  while (pieces.length > 0) {
    let written = writevSync(pipe, pieces);
    const left: Uint8Array[] = [];
    for (const piece of pieces) {
      if (written < piece.length) left.push(piece.subarray(written));
      written = Math.max(0, written - piece.length);
    }
    pieces = left;
  }
}

function refused(code: ErrorCode, error: unknown): ChildReply {
  const text = error instanceof Error ? error.message : String(error);
  const line = text.replace(/\s+/g, ' ').trim();
  return { kind: 'refused', code, detail: line.length > 600 ? `${line.slice(0, 600)}…` : line };
}

function memory(): ChildMemory {
  if (process.platform !== 'linux') {
    const rssBytes = process.memoryUsage.rss();
    return { rssBytes, peakBytes: Math.max(rssBytes, process.resourceUsage().maxRSS * 1024) };
  }
  // Not resourceUsage: after fork and exec its maximum on Linux may still be the parent's.
  const status = readFileSync('/proc/self/status', 'utf8');
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
  return { rssBytes: field('VmRSS'), peakBytes: field('VmHWM') };
}

/** External data must stand beside its model under the path the model names: a folder of hard links. */
function linkFiles(folder: string, files: { from: string; path: string }[]): void {
  for (const { from, path } of files) {
    const to = join(folder, path);
    mkdirSync(dirname(to), { recursive: true, mode: 0o700 });
    try {
      linkSync(from, to);
    } catch (error) {
      const errno = error instanceof Error && 'code' in error ? error.code : undefined;
      // File systems without hard links, or a work folder on another one.
      if (errno !== 'EXDEV' && errno !== 'EPERM' && errno !== 'ENOTSUP' && errno !== 'EMLINK') throw error;
      copyFileSync(from, to);
    }
  }
}

/** Removes what children left behind that died while they loaded. */
function sweep(workFolder: string): void {
  mkdirSync(workFolder, { recursive: true, mode: 0o700 });
  for (const name of readdirSync(workFolder)) {
    const pid = Number(name);
    if (Number.isSafeInteger(pid) && pid !== process.pid && isAlive(pid)) continue;
    rmSync(join(workFolder, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // ESRCH is the answer "no"; EPERM means that it lives under another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** What ONNX Runtime says of a graph it does not take, apart from what this device could not do. */
function loadRefusal(error: unknown): ChildReply {
  const text = error instanceof Error ? error.message : String(error);
  const ofDevice =
    /bad_alloc|Failed to allocate|out of memory|ENOENT|EACCES|ENOSPC|doesn't exist|No such file/i;
  const notBuiltIn = /backend not found|execution provider|Invalid argument: sessionOptions/i;
  return refused(ofDevice.test(text) || notBuiltIn.test(text) ? 'model-load-failed' : 'model-invalid', error);
}

async function admit(request: ChildRequest & { kind: 'admit' }): Promise<ChildReply> {
  // Imported here: the child that serves never needs it.
  const { admitModel, opsetMaxDefault } = await import('../../shared/onnx/admission.ts');
  const admitted = admitModel(readFileSync(request.modelPath), {
    excludeOutputs: request.excludeOutputs,
    externalFiles: new Set(request.externalFiles),
    opsetMax: opsetMaxDefault,
  });
  if (!admitted.ok) return { kind: 'refused', ...admitted.refusal };
  const { inputs, outputs, opset } = admitted.value;
  return { kind: 'admitted', inputs, outputs, opset };
}

async function load(request: ChildRequest & { kind: 'load' }): Promise<ChildReply> {
  const { openSession } = await import('./session.ts');
  const { external, threads, providers } = request;
  const start = systemClock.mono();
  const folder = external === null ? null : join(external.workFolder, String(process.pid));
  try {
    let path = request.modelPath;
    if (external !== null && folder !== null) {
      sweep(external.workFolder);
      linkFiles(folder, external.files);
      path = join(folder, external.modelPath);
    }
    session = await openSession(path, { threads, providers, clock: systemClock });
  } catch (error) {
    return loadRefusal(error);
  } finally {
    // The runtime has the files open or in memory; their names are no longer needed.
    if (folder !== null) rmSync(folder, { recursive: true, force: true });
  }
  return { kind: 'loaded', loadMs: systemClock.mono() - start };
}

/** What the caller gave wrong, as far as the runtime's words tell. */
const callersFault =
  /Invalid rank for input|Got invalid dimensions|Unexpected input data type|invalid feed|is missing in 'feeds'/i;

async function run(frame: Frame, outputs: string[]): Promise<{ reply: ChildReply; tensors: Tensor[] }> {
  if (session === null) return { reply: refused('infer-not-ready', 'no model is loaded'), tensors: [] };
  try {
    const done = await session.run(cutBody(frame), outputs);
    return { reply: { kind: 'ran', runMs: done.runMs }, tensors: done.outputs };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return { reply: refused(callersFault.test(text) ? 'infer-invalid' : 'infer-failed', error), tensors: [] };
  }
}

async function answer(frame: Frame): Promise<{ reply: ChildReply; tensors: Tensor[] }> {
  const request = frame.message as ChildRequest;
  switch (request.kind) {
    case 'admit':
      return { reply: await admit(request), tensors: [] };
    case 'load':
      return { reply: await load(request), tensors: [] };
    case 'memory':
      return { reply: { kind: 'memory', ...memory() }, tensors: [] };
    case 'run':
      return run(frame, request.outputs);
  }
}

function collect(bytes: number): void {
  uncollectedBytes += bytes;
  if (uncollectedBytes < collectEveryBytes) return;
  uncollectedBytes = 0;
  globalThis.gc?.();
}

const reader = createFrameReader();
for (;;) {
  const frame = readFrame(reader);
  if (frame === null) break;
  const { reply, tensors } = await answer(frame);
  try {
    writePieces(encodeReply(frame.id, reply, tensors));
  } catch (error) {
    // EPIPE: the agent is gone, and so are we.
    if (error instanceof Error && 'code' in error && error.code === 'EPIPE') break;
    throw error;
  }
  collect(
    tensors.reduce((sum, { data }) => sum + (Array.isArray(data) ? 0 : data.byteLength), frame.body.length),
  );
}
process.exit(0);
