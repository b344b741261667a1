// Why: a release's own golden cases run in its own child on this device: its evidence before it may serve.
// Trusts: the release's files were verified. Must never: judge latency or memory; the update machine does,
// against the manifest's limits. Never call a case passed that was not run.

import { posix } from 'node:path';
import type { Clock, Disk, LoadableRelease, ProbeEvidence } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { zeroInputs, zeroTensor } from '../../shared/onnx/zeros.ts';
import { compareGolden, type GoldenCase, parseGolden } from '../../shared/wire/golden.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { checkRequest, type ModelSignature } from './signature.ts';
import { percentile, type Slot } from './slot.ts';

export interface ProbeOptions {
  release: LoadableRelease;
  manifest: Manifest;
  signature: ModelSignature;
  slot: Slot;
  disk: Disk;
  clock: Clock;
}

/** Runs wanted for a percentile, and the time that repeating the cases for it may take. */
const latencyRunsMin = 20;
const latencyRepeatMs = 5_000;

/** Refusals: `golden-malformed`, `disk-io`. No golden file is no case. */
async function readCases(release: LoadableRelease, disk: Disk): Promise<Result<GoldenCase[]>> {
  const dataFiles = new Map<string, Uint8Array>();
  for (const file of release.files) {
    if (file.role !== 'golden-data') continue;
    const bytes = await disk.read(file.diskPath);
    if (bytes === null) return refuse('disk-io', `${file.path} is gone from the disk`);
    dataFiles.set(file.path, bytes);
  }
  const cases: GoldenCase[] = [];
  for (const file of release.files) {
    if (file.role !== 'golden') continue;
    const bytes = await disk.read(file.diskPath);
    if (bytes === null) return refuse('disk-io', `${file.path} is gone from the disk`);
    const folder = posix.dirname(file.path);
    const parsed = parseGolden(bytes, (name) => dataFiles.get(posix.join(folder, name)) ?? null);
    if (!parsed.ok) return parsed;
    for (const golden of parsed.value) cases.push(golden);
  }
  return ok(cases);
}

/** The case's inputs with what its sequence carries so far; a first step without state gets zeros. */
function inputsOf(golden: GoldenCase, carried: Map<string, Tensor>, options: ProbeOptions): Tensor[] {
  if (golden.sequence === null) return golden.inputs;
  const inputs = golden.inputs.filter(({ name }) => !carried.has(name));
  inputs.push(...carried.values());
  for (const { input } of options.manifest.state) {
    const declared = options.signature.inputs.find(({ name }) => name === input);
    if (declared === undefined || inputs.some(({ name }) => name === input)) continue;
    const zeros = zeroTensor(declared);
    if (zeros !== null) inputs.push(zeros);
  }
  return inputs;
}

interface CaseOutcome {
  runMs: number | null;
  failure: string | null;
}

/** Runs one case and moves its sequence's state on. A refusal means that the child is lost. */
async function runCase(
  golden: GoldenCase,
  states: Map<string, Map<string, Tensor>>,
  options: ProbeOptions,
): Promise<Result<CaseOutcome>> {
  const { manifest, signature, slot } = options;
  const carried = (golden.sequence !== null && states.get(golden.sequence)) || new Map<string, Tensor>();
  const inputs = inputsOf(golden, carried, options);
  const stateOutputs = golden.sequence === null ? [] : manifest.state.map(({ output }) => output);
  const wanted = new Set([...golden.expected.map(({ name }) => name), ...stateOutputs]);
  // An expected output that the model lacks is not asked for: the comparison says so.
  const known = signature.outputs.map(({ name }) => name).filter((name) => wanted.has(name));
  if (known.length === 0)
    return ok({ runMs: null, failure: 'the model has none of the outputs that are expected' });
  const checked = checkRequest(signature, inputs, known);
  if (!checked.ok) return ok({ runMs: null, failure: checked.refusal.detail });
  const ran = await slot.run(inputs, checked.value, 'probe');
  if (!ran.ok) {
    const ofTheCase = ran.refusal.code === 'infer-invalid' || ran.refusal.code === 'infer-failed';
    return ofTheCase ? ok({ runMs: null, failure: ran.refusal.detail }) : ran;
  }
  if (golden.sequence !== null) {
    const next = new Map(carried);
    for (const { output, input } of manifest.state) {
      const value = ran.value.outputs.find(({ name }) => name === output);
      if (value !== undefined) next.set(input, { ...value, name: input });
    }
    states.set(golden.sequence, next);
  }
  const { firstFailure } = compareGolden(golden.expected, ran.value.outputs, golden.rtol, golden.atol);
  return ok({ runMs: ran.value.runMs, failure: firstFailure });
}

/**
 * Runs every golden case once, then repeats them until there are runs enough for a percentile.
 * Latency is the time inside the runtime. Refusals: `golden-malformed`, `model-crashed`,
 * `infer-deadline`, `disk-io`.
 */
export async function probeRelease(options: ProbeOptions): Promise<Result<ProbeEvidence>> {
  const { release, slot, signature, disk, clock } = options;
  const read = await readCases(release, disk);
  if (!read.ok) return read;
  const cases = read.value;
  const latenciesMs: number[] = [];
  let goldenPassed = 0;
  let firstFailure: string | null = null;

  const states = new Map<string, Map<string, Tensor>>();
  for (const [index, golden] of cases.entries()) {
    const outcome = await runCase(golden, states, options);
    if (!outcome.ok) return outcome;
    const { failure, runMs } = outcome.value;
    if (runMs !== null) latenciesMs.push(runMs);
    if (failure === null) goldenPassed++;
    else firstFailure ??= `case ${index}: ${failure}`;
  }

  // Without golden cases zeros must do; they say nothing about answers, but something about speed.
  const zeros: GoldenCase = {
    inputs: zeroInputs(signature) ?? [],
    expected: signature.outputs.map(({ name, datatype }) => ({ name, datatype, shape: [0], data: [] })),
    rtol: 0,
    atol: 0,
    sequence: null,
  };
  const repeated = cases.length > 0 ? cases : [zeros];
  const endMs = clock.mono() + latencyRepeatMs;
  while (latenciesMs.length < latencyRunsMin && clock.mono() < endMs) {
    const before = latenciesMs.length;
    states.clear();
    for (const golden of repeated) {
      const outcome = await runCase(golden, states, options);
      if (!outcome.ok) return outcome;
      if (outcome.value.runMs !== null) latenciesMs.push(outcome.value.runMs);
      if (latenciesMs.length >= latencyRunsMin || clock.mono() >= endMs) break;
    }
    if (latenciesMs.length === before) break;
  }

  const memory = await slot.memory();
  if (!memory.ok) return memory;
  return ok({
    goldenCases: cases.length,
    goldenPassed,
    firstFailure,
    latencyP50Ms: percentile(latenciesMs, 0.5) ?? 0,
    latencyP95Ms: percentile(latenciesMs, 0.95) ?? 0,
    memoryBytesPeak: memory.value.peakBytes,
  });
}
