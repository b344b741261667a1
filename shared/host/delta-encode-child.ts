// Why: the entry of a throw-away process that encodes one file against others, so that what that takes in memory and
// time, and whatever a file does to the codec, is not the registry's. Trusts: its parent for what to encode.
// Must never: be imported; it ends the process it runs in.

import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { setPriority } from 'node:os';
import { sha256Hex } from '../crypto/digests.ts';
import { encodeDelta } from '../onnx/delta/encode.ts';
import { oneLine } from '../onnx/runtime-words.ts';
import type { EncodeOrder, EncodeReply } from './delta-encoder.ts';
import { systemZstd } from './zstd.ts';

const pipe = 3;

function stepBack(): void {
  try {
    setPriority(10);
    if (process.platform === 'linux') writeFileSync('/proc/self/oom_score_adj', '1000');
  } catch (error) {
    // A system that does not allow it: then without.
    if (!(error instanceof Error)) throw error;
  }
}

function encode({ bases, target, beside, bytesMax, outPath }: EncodeOrder): EncodeReply {
  const read = ({ name, path, sha256 }: EncodeOrder['target']) => {
    const bytes = new Uint8Array(readFileSync(path));
    // A file that rotted would be encoded faithfully, and be of no use to anybody.
    if (sha256Hex(bytes) !== sha256) throw new Error(`${sha256} is not what lies under its name`);
    return { path: name, bytes };
  };
  try {
    const encoded = encodeDelta({
      base: bases.map(read),
      target: read(target),
      beside: beside.map(read),
      zstd: systemZstd,
    });
    if (encoded.length > bytesMax) return { kind: 'no-smaller' };
    writeFileSync(outPath, encoded, { mode: 0o600 });
    return { kind: 'made', bytes: encoded.length };
  } catch (error) {
    return { kind: 'failed', detail: oneLine(error) };
  }
}

stepBack();
const reply = encode(JSON.parse(readFileSync(0, 'utf8')) as EncodeOrder);
writeSync(pipe, `${JSON.stringify(reply)}\n`);
process.exit(0);
