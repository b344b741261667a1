// Why: the entry of a throw-away process that makes one file of an encoded one and its bases: what that takes in memory
// goes back to the device when it is done. Trusts: its parent for what to make; nothing in the encoded file.
// Must never: be imported; it ends the process it runs in.

import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { setPriority } from 'node:os';
import { asFleetError } from '../kernel/errors.ts';
import { streamDelta } from '../onnx/delta/apply.ts';
import { oneLine } from '../onnx/runtime-words.ts';
import type { RebuildOrder, RebuildReply } from './delta-rebuilder.ts';
import { diskFault } from './disk-fault.ts';
import { systemZstd } from './zstd.ts';

const pipe = 3;
const parent = process.ppid;

function stepBack(): void {
  try {
    setPriority(10);
    if (process.platform === 'linux') writeFileSync('/proc/self/oom_score_adj', '1000');
  } catch (error) {
    // A system that does not allow it: then without.
    if (!(error instanceof Error)) throw error;
  }
}

function writeAll(file: number, chunk: Uint8Array): void {
  for (let at = 0; at < chunk.length; ) at += writeSync(file, chunk, at, chunk.length - at);
}

function rebuild({ encodedPath, basePaths, targetPath }: RebuildOrder): RebuildReply {
  try {
    const patch = new Uint8Array(readFileSync(encodedPath));
    const bases = basePaths.map((path) => new Uint8Array(readFileSync(path)));
    const file = openSync(targetPath, 'w', 0o600);
    try {
      const sink = (chunk: Uint8Array): void => {
        // Whoever asked is gone: nobody would look at what is made.
        if (process.ppid !== parent) process.exit(1);
        writeAll(file, chunk);
      };
      const made = streamDelta({ patch, bases, zstd: systemZstd, sink });
      return made.ok ? { kind: 'made' } : { kind: 'refused', ...made.refusal };
    } finally {
      closeSync(file);
    }
  } catch (error) {
    const { code, message } = asFleetError(diskFault(error, targetPath));
    return { kind: 'fault', code, detail: oneLine(message) };
  }
}

stepBack();
const reply = rebuild(JSON.parse(readFileSync(0, 'utf8')) as RebuildOrder);
writeSync(pipe, `${JSON.stringify(reply)}\n`);
process.exit(0);
