// Why: the entry of a throw-away process that makes one file of an encoded one and of files that are here.
// Trusts: its parent for what to make and where; nothing in the encoded file. Must never: be imported; it ends the
// process it runs in. Nor load what a device's memory has no room for.

import { closeSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { setPriority } from 'node:os';
import { streamDelta } from '../onnx/delta/apply.ts';
import { oneLine } from '../onnx/runtime-words.ts';
import { diskFault, errnoOf } from './disk-fault.ts';
import type { RebuildOrder, RebuildReply } from './rebuilder.ts';
import { systemZstd } from './zstd.ts';

const pipe = 3;
const parent = process.ppid;

function stepBack(): void {
  try {
    // What serves on this device comes first.
    setPriority(10);
  } catch (error) {
    // A system that does not allow it: then without.
    if (!(error instanceof Error)) throw error;
  }
}

const read = (path: string): Uint8Array => new Uint8Array(readFileSync(path));

function writeAll(file: number, chunk: Uint8Array): void {
  // Nobody is left who would use it.
  if (process.ppid !== parent) process.exit(1);
  for (let at = 0; at < chunk.length; ) at += writeSync(file, chunk, at, chunk.length - at);
}

function rebuild(order: RebuildOrder): RebuildReply {
  const { targetPath, targetBytes, memoryBytesMax } = order;
  // A new file: one that an earlier process still writes to is another one from here on.
  rmSync(targetPath, { force: true });
  const held = [order.encodedPath, ...order.basePaths].reduce((sum, path) => sum + statSync(path).size, 0);
  if (held > memoryBytesMax)
    return { kind: 'refused', code: 'delta-too-large', detail: `${held} bytes do not fit in memory` };
  const file = openSync(targetPath, 'wx', 0o600);
  try {
    const made = streamDelta({
      patch: read(order.encodedPath),
      bases: order.basePaths.map(read),
      zstd: systemZstd,
      limits: { targetBytesMax: targetBytes, memoryBytesMax },
      sink: (chunk) => writeAll(file, chunk),
    });
    return made.ok ? { kind: 'made' } : { kind: 'refused', ...made.refusal };
  } finally {
    closeSync(file);
  }
}

function answer(): RebuildReply {
  try {
    return rebuild(JSON.parse(readFileSync(0, 'utf8')) as RebuildOrder);
  } catch (error) {
    if (errnoOf(error) === undefined)
      return { kind: 'refused', code: 'delta-rebuild-failed', detail: oneLine(error) };
    const { code, message } = diskFault(error, 'rebuild');
    return { kind: 'fault', code: code === 'disk-full' ? code : 'disk-io', detail: oneLine(message) };
  }
}

stepBack();
writeSync(pipe, `${JSON.stringify(answer())}\n`);
process.exit(0);
