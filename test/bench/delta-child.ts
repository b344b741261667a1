// Why: the memory of a rebuild is that of a process which does nothing else. Arguments: patch, target, base files.
// Trusts: its parent. Must never: be imported; it writes its measurement to stdout.

import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { systemClock } from '../../shared/host/clock.ts';
import { systemZstd } from '../../shared/host/zstd.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { streamDelta } from '../../shared/onnx/delta/apply.ts';
import { memoryMB, round } from './measure.ts';

const [patch = '', target = '', ...bases] = process.argv.slice(2);
const file = openSync(target, 'w');
const startMs = systemClock.mono();
const done = streamDelta({
  patch: readFileSync(patch),
  bases: bases.map((base) => readFileSync(base)),
  zstd: systemZstd,
  sink(chunk) {
    for (let at = 0; at < chunk.length; ) at += writeSync(file, chunk, at);
  },
});
unwrap(done);
closeSync(file);
const tookMs = round(systemClock.mono() - startMs);
process.stdout.write(JSON.stringify({ tookMs, peakMB: memoryMB(process.pid, 'VmHWM') }));
