// Why: from verified files to a process that answers: manifest, admission in a process of its own, load, warm-up.
// Trusts: the files under the digests of the release. Must never: give the serving process a model that was not
// admitted, or let one that loads take more memory than it may.

import { join, posix } from 'node:path';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Disk, LoadableRelease, Log } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { promisedMemory } from '../../shared/onnx/memory-bounds.ts';
import { zeroInputs } from '../../shared/onnx/zeros.ts';
import { type Manifest, manifestSchema } from '../../shared/wire/manifest.ts';
import { type OpenChild, overMemory } from './keeper.ts';
import type { MemoryWatch } from './memory-watch.ts';
import type { ChildRequest } from './pipe.ts';
import { type ModelProcess, startModelProcess } from './process.ts';
import type { ModelSignature } from './signature.ts';

type LoadRequest = ChildRequest & { kind: 'load' };

/** A release that was admitted, and how to bring its processes up. */
export interface Admitted {
  version: string;
  manifest: Manifest;
  signature: ModelSignature;
  open(terms: { threads: () => number; limitBytes: () => number; watch: MemoryWatch }): OpenChild;
  /** Ends the process that was started ahead, where none was opened. */
  abandon(): void;
}

export interface OpeningParts {
  clock: Clock;
  log: Log;
  disk: Disk;
  /** Absolute: children open the files there by path. */
  stateFolder: string;
}

/** Where manifests lie, named by digest (agent/update). */
const manifestPath = (sha256: string): string => `blobs/${sha256}`;
const workFolder = 'work';

async function readManifest(disk: Disk, release: LoadableRelease): Promise<Result<Manifest>> {
  const bytes = await disk.read(manifestPath(release.manifestSha256));
  if (bytes === null) return refuse('model-load-failed', 'the manifest is gone from the disk');
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    return refuse('manifest-malformed', error instanceof Error ? error.message : 'not JSON');
  }
  const parsed = manifestSchema.safeParse(json);
  if (parsed.success) return ok(parsed.data);
  const issue = parsed.error.issues[0];
  return refuse('manifest-malformed', `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'does not fit'}`);
}

/** Admission in a process of its own: a hostile file costs the serving child neither memory nor life. */
async function admit(
  clock: Clock,
  request: ChildRequest & { kind: 'admit' },
): Promise<Result<ModelSignature>> {
  const admitter = startModelProcess(clock);
  const admitted = await admitter.ask(request, [], limits.childStartMs);
  admitter.kill();
  if (!admitted.ok) return admitted;
  const { inputs, outputs } = admitted.value.reply;
  return ok({ inputs, outputs: outputs.filter(({ name }) => !request.excludeOutputs.includes(name)) });
}

/** Loads and warms up: the first client must not pay for what the runtime puts off. Refusals leave it running. */
async function warmUp(
  request: LoadRequest,
  signature: ModelSignature,
  child: ModelProcess,
): Promise<Result<{ provider: string; skipped: { name: string; reason: string }[] }>> {
  const loaded = await child.ask(request, [], limits.childStartMs);
  if (!loaded.ok) return late(loaded.refusal);
  const { provider, skipped } = loaded.value.reply;
  const zeros = zeroInputs(signature);
  if (zeros === null) return ok({ provider, skipped });
  const outputs = signature.outputs.map(({ name }) => name);
  const warm = await child.ask({ kind: 'run', outputs }, zeros, limits.childStartMs);
  // Zeros of size one are no legal input for every model; then it is warm enough without them.
  const dead = !warm.ok && (warm.refusal.code === 'model-crashed' || warm.refusal.code === 'infer-deadline');
  return dead ? late(warm.refusal) : ok({ provider, skipped });
}

function late(refusal: Refusal): Result<never> {
  if (refusal.code !== 'infer-deadline') return { ok: false, refusal };
  return refuse('model-load-failed', `the model was not ready within ${limits.childStartMs} ms`);
}

/**
 * Reads and admits a release. Refusals: those of admission, `manifest-malformed`, `model-load-failed`. Those of `open`:
 * `model-invalid`, `model-load-failed`, `model-crashed`, `model-memory-exceeded`.
 */
export async function admitRelease(release: LoadableRelease, parts: OpeningParts): Promise<Result<Admitted>> {
  const { clock, log, disk, stateFolder } = parts;
  const manifest = await readManifest(disk, release);
  if (!manifest.ok) return manifest;
  const model = release.files.find(({ role }) => role === 'model');
  const version = parseReleaseId(release.releaseId)?.version;
  if (model === undefined || version === undefined)
    return refuse('model-load-failed', 'the release names no model');
  const { excludeOutputs, session } = manifest.value;
  const modelPath = join(stateFolder, model.diskPath);
  const beside = release.files.filter(({ role }) => role === 'external-data');
  // Both processes start at once; the one that serves gets the model only after it was admitted.
  let ahead: ModelProcess | null = startModelProcess(clock);
  const abandon = (): void => {
    ahead?.kill();
    ahead = null;
  };
  const admitted = await admit(clock, {
    kind: 'admit',
    modelPath,
    excludeOutputs,
    externalFiles: beside.map(({ path, bytes }) => ({
      path: posix.relative(posix.dirname(model.path), path),
      bytes,
    })),
    memoryBounds: release.proven === true ? [] : [promisedMemory(manifest.value)],
  });
  if (!admitted.ok) {
    abandon();
    return admitted;
  }
  const signature = admitted.value;
  const request = {
    kind: 'load' as const,
    modelPath,
    external:
      beside.length === 0
        ? null
        : {
            workFolder: join(stateFolder, workFolder),
            modelPath: model.path,
            files: [model, ...beside].map(({ path, diskPath }) => ({
              path,
              from: join(stateFolder, diskPath),
            })),
          },
    providers: session.providers ?? ['cpu'],
  };

  const open: Admitted['open'] = (terms) => async (started) => {
    const child = ahead ?? startModelProcess(clock);
    ahead = null;
    started(child);
    let exceeded: Refusal | null = null;
    const unwatch = terms.watch.add(child, (rssBytes) => {
      const limitBytes = terms.limitBytes();
      if (rssBytes <= limitBytes) return;
      exceeded = overMemory(rssBytes, limitBytes);
      child.kill();
    });
    const warm = await warmUp({ ...request, threads: terms.threads() }, signature, child);
    unwatch();
    if (!warm.ok) {
      child.kill();
      return exceeded === null ? warm : { ok: false, refusal: exceeded };
    }
    const { provider, skipped } = warm.value;
    for (const { name, reason } of skipped)
      log.emit('warn', 'inference.provider.skipped', {
        as: release.as,
        release: release.releaseId,
        provider: name,
        reason,
      });
    return ok({ process: child, provider });
  };
  return ok({ version, manifest: manifest.value, signature, open, abandon });
}
