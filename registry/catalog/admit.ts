// Why: whether the files of a pushed release are all here and can be served: what a device would find out
// too late. Trusts: shared/onnx and shared/wire for the formats. Must never: admit a model unread.

import { limits } from '../../shared/kernel/limits.ts';
import type { ModelTrial } from '../../shared/kernel/ports.ts';
import type { FileRole, ReleaseFile } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type Admitted, admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { type MemoryBound, promisedMemory, smallestBound } from '../../shared/onnx/memory-bounds.ts';
import { goldenDataFiles, parseGolden } from '../../shared/wire/golden.ts';
import type { Manifest, TensorSignature } from '../../shared/wire/manifest.ts';
import { parseProfile } from '../../shared/wire/profile.ts';
import type { Blobs } from './blobs.ts';

/** An ONNX file is one protobuf message; longer ones cannot exist (protobuf's own limit). */
const modelBytesMax = 2 ** 31 - 1;
/** Golden cases, their data and profiles are read whole; real ones stay below this by far. */
const sideFileBytesMax = 256 * 1024 * 1024;

const ofRole = (manifest: Manifest, role: FileRole): ReleaseFile[] =>
  manifest.files.filter((file) => file.role === role);

async function checkPresence(manifest: Manifest, blobs: Blobs): Promise<Result<void>> {
  for (const file of manifest.files) {
    const bytes = await blobs.size(file.sha256);
    if (bytes === null) return refuse('blob-missing', `${file.path} (${file.sha256}) was not uploaded`);
    if (bytes !== file.bytes) {
      return refuse('blob-size-mismatch', `${file.path} has ${bytes} bytes, the manifest says ${file.bytes}`);
    }
  }
  return ok();
}

async function readWhole(blobs: Blobs, file: ReleaseFile, bytesMax: number): Promise<Result<Uint8Array>> {
  if (file.bytes > bytesMax) return refuse('body-too-large', `${file.path} has more than ${bytesMax} bytes`);
  const bytes = await blobs.read(file.sha256);
  return bytes === null ? refuse('blob-missing', `${file.path} is gone`) : ok(bytes);
}

const spelled = (tensors: readonly TensorSignature[]): string =>
  tensors.map((tensor) => `${tensor.name}:${tensor.datatype}`).join(', ');

/** What was found out about a model beyond its bytes. */
export interface Tried {
  /** Why it was only read; null where it was loaded and run once. */
  untried: string | null;
}

async function checkModel(manifest: Manifest, blobs: Blobs, terms: AdmissionTerms): Promise<Result<Tried>> {
  const [model] = ofRole(manifest, 'model');
  if (model === undefined) return refuse('manifest-malformed', 'no file is the model');
  const bytes = await readWhole(blobs, model, Math.min(modelBytesMax, limits.blobBytesMax));
  if (!bytes.ok) return bytes;
  // External data is named relative to the model's own folder.
  const folder = model.path.includes('/') ? model.path.slice(0, model.path.lastIndexOf('/') + 1) : '';
  const external = ofRole(manifest, 'external-data').filter((file) => file.path.startsWith(folder));
  const admitted = admitModel(bytes.value, {
    excludeOutputs: manifest.excludeOutputs,
    externalFiles: new Map(external.map((file) => [file.path.slice(folder.length), file.bytes])),
    opsetMax: opsetMaxDefault,
    memoryBounds: [promisedMemory(manifest), operatorsBound(terms)],
  });
  if (!admitted.ok) return admitted;
  const signatures = [
    { what: 'inputs', said: manifest.inputs, is: admitted.value.inputs },
    { what: 'outputs', said: manifest.outputs, is: admitted.value.outputs },
  ];
  for (const { what, said, is } of signatures) {
    if (said.length > 0 && spelled(said) !== spelled(is)) {
      return refuse('manifest-malformed', `${what}: ${spelled(said)}; the model has ${spelled(is)}`);
    }
  }
  if (terms.trial === undefined) return ok({ untried: 'this registry only reads models' });
  return terms.trial(manifest, [model, ...external], admitted.value, operatorsBound(terms));
}

/** Loads and runs the model once, elsewhere. Refusals: those of `ModelTrial`. */
export type Trial = (
  manifest: Manifest,
  files: readonly ReleaseFile[],
  model: Pick<Admitted, 'inputs' | 'outputs'>,
  bound: MemoryBound,
) => Promise<Result<Tried>>;

export interface AdmissionTerms {
  /** Absent: models are only read. */
  trial?: Trial | undefined;
  /** What one model may take, whatever its manifest promises. */
  modelMemoryBytesMax?: number | undefined;
}

function operatorsBound(terms: AdmissionTerms): MemoryBound {
  const bytes = terms.modelMemoryBytesMax ?? limits.modelMemoryBytesMax;
  return { bytes, from: '--model-memory-max of the registry' };
}

/** Beyond what the manifest promises twice: the process itself, and what the runtime needs to load. */
const trialMemoryBytes = 192 * 1024 * 1024;
/** The same files tried with the same outputs need no second trial; a push that is repeated after a fault is one. */
const trialsRemembered = 64;

/** Trials of blobs that lie in `pathOf`. */
export function createTrial(trial: ModelTrial, pathOf: (sha256: string) => string): Trial {
  const passed = new Set<string>();
  return async (manifest, files, { inputs, outputs }, bound) => {
    const names = outputs.map(({ name }) => name);
    const promised = promisedMemory(manifest);
    const key = JSON.stringify([files.map(({ path, sha256 }) => [path, sha256]), names, promised.bytes]);
    if (passed.has(key)) return ok({ untried: null });
    const [model] = files;
    if (model === undefined) return refuse('manifest-malformed', 'no file is the model');
    const generous = {
      bytes: 2 * promised.bytes + trialMemoryBytes,
      from: `twice ${promised.from}, with what a process needs,`,
    };
    const outcome = await trial.run({
      files: files.map(({ path, sha256 }) => ({ path, localPath: pathOf(sha256) })),
      modelPath: model.path,
      inputs,
      outputs: names,
      memory: smallestBound(generous, bound),
      timeoutMs: limits.modelTrialMs,
    });
    if (!outcome.ok) return outcome;
    const { untried } = outcome.value;
    // A runtime that is missing now may be there for the next push.
    if (untried !== null) return ok({ untried });
    passed.add(key);
    for (const oldest of passed) {
      if (passed.size <= trialsRemembered) break;
      passed.delete(oldest);
    }
    return ok({ untried });
  };
}

async function checkGolden(manifest: Manifest, blobs: Blobs): Promise<Result<void>> {
  for (const golden of ofRole(manifest, 'golden')) {
    const bytes = await readWhole(blobs, golden, sideFileBytesMax);
    if (!bytes.ok) return bytes;
    const named = goldenDataFiles(bytes.value);
    if (!named.ok) return named;
    const folder = golden.path.includes('/') ? golden.path.slice(0, golden.path.lastIndexOf('/') + 1) : '';
    const data = new Map<string, Uint8Array>();
    for (const name of named.value) {
      const file = ofRole(manifest, 'golden-data').find((one) => one.path === folder + name);
      if (file === undefined)
        return refuse('golden-malformed', `${golden.path}: ${name} is not in the release`);
      const content = await readWhole(blobs, file, sideFileBytesMax);
      if (!content.ok) return content;
      data.set(name, content.value);
    }
    const cases = parseGolden(bytes.value, (name) => data.get(name) ?? null);
    if (!cases.ok) return cases;
  }
  return ok();
}

async function checkProfiles(manifest: Manifest, blobs: Blobs): Promise<Result<void>> {
  for (const profile of ofRole(manifest, 'profile')) {
    const bytes = await readWhole(blobs, profile, sideFileBytesMax);
    if (!bytes.ok) return bytes;
    const parsed = parseProfile(bytes.value);
    if (!parsed.ok) return parsed;
  }
  return ok();
}

/**
 * Every file of the manifest by presence and size, golden cases and profile by their schemas, the model by admission and,
 * where there is a runtime, by a trial: last, because that costs most. Refusals: `blob-missing`, `blob-size-mismatch`,
 * `body-too-large`, `manifest-malformed`, the `model-…` codes, `interrupted`, and those of the formats.
 */
export async function checkReleaseFiles(
  manifest: Manifest,
  blobs: Blobs,
  terms: AdmissionTerms,
): Promise<Result<Tried>> {
  for (const check of [checkPresence, checkGolden, checkProfiles]) {
    const checked = await check(manifest, blobs);
    if (!checked.ok) return checked;
  }
  return checkModel(manifest, blobs, terms);
}
