// Why: one rebuild in a process that does nothing else, so that its memory can be looked at.
// Trusts: its arguments. Must never: be imported; it ends the process it runs in.

import { readFileSync } from 'node:fs';
import { systemClock } from '../../shared/host/clock.ts';
import { systemZstd } from '../../shared/host/zstd.ts';
import { streamDelta } from '../../shared/onnx/delta/apply.ts';
import { memoryMB } from './measure.ts';

const [, , patchPath = '', basePath = '', rounds = '1'] = process.argv;
const patch = new Uint8Array(readFileSync(patchPath));
const bases = [new Uint8Array(readFileSync(basePath))];
const timesMs: number[] = [];
/** After the first round, which is all that a device runs. */
let peakMB: number | null = null;
for (let round = 0; round < Number(rounds); round += 1) {
  const startMs = systemClock.mono();
  const made = streamDelta({ patch, bases, zstd: systemZstd, sink: () => undefined });
  timesMs.push(systemClock.mono() - startMs);
  if (!made.ok) throw new Error(made.refusal.detail);
  peakMB ??= memoryMB(process.pid, 'VmHWM');
}
process.stdout.write(`${JSON.stringify({ timesMs, peakMB })}\n`);
