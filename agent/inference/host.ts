// Why: the Runtime port on real children: loads, probes, switches and serves the releases of this device.
// Trusts: files that the update machine verified, under the digests it names. Must never: run a model in
// this process, or serve a release that was not activated.

import { availableParallelism } from 'node:os';
import { join, posix } from 'node:path';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Disk, LoadableRelease, Log, Runtime } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { promisedMemoryBytes } from '../../shared/onnx/admission.ts';
import { type Manifest, manifestSchema, type TensorSignature } from '../../shared/wire/manifest.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import type { ReleaseCounters } from './counters.ts';
import type { ChildRequest } from './pipe.ts';
import { probeRelease } from './probe.ts';
import { type ModelProcess, startModelProcess } from './process.ts';
import type { Recipe } from './recipe.ts';
import { type Shadow, startShadow } from './shadow.ts';
import { checkRequest, type ModelSignature, zeroInputs } from './signature.ts';
import { createSlot, type Slot } from './slot.ts';

export interface InferenceHostOptions {
  clock: Clock;
  log: Log;
  /** The state folder, absolute: children open the files there by path. */
  stateFolder: string;
  /** The same folder as a port; manifests and golden cases are read through it. */
  disk: Disk;
  deadlineMs?: number;
  queueMax?: number;
  /** Told of each request that something serves. Must not block. */
  onRequest?: (fact: { as: string; releaseId: string; code: string | null; latencyMs: number }) => void;
  /** Another release serves, or a model no longer does. */
  onServing?: () => void;
  /** Threads of one model where its manifest names none. Default: half of the cores, at least 1. */
  threads?: number;
}

export interface ServedModel {
  /** Name under which it is served. */
  as: string;
  releaseId: string;
  version: string;
  ready: boolean;
  /** Why it is not ready. */
  reason: Refusal | null;
  pid: number | null;
  inputs: TensorSignature[];
  outputs: TensorSignature[];
  /** What its manifest says about streams and sequences. */
  recipe: Recipe;
  counters: ReleaseCounters;
  /** Requests that wait now. */
  waiting: number;
  /** How often its process was started again, by cause. */
  restarts: { crashed: number; recycled: number; stuck: number; overMemory: number };
  /** Resident memory of its process when last looked at, and what it may take; null: not known, no limit. */
  memory: { rssBytes: number | null; limitBytes: number | null };
  /** The execution provider that runs it. */
  provider: string;
}

export interface InferCall {
  inputs: Tensor[];
  /** Names of the outputs wanted; absent: all. */
  outputs?: string[] | undefined;
  /** Shorter than the host's own deadline, from the client. */
  deadlineMs?: number | undefined;
  /** Aborted when the client went away: a request that still waits is dropped. Outlives the call: one for many. */
  signal?: AbortSignal | undefined;
}

export interface InferAnswer {
  releaseId: string;
  version: string;
  outputs: Tensor[];
  runMs: number;
}

export interface InferenceHost extends Runtime {
  /**
   * Runs a request against what serves `as`. Refusals: `infer-unknown-model` (also for a version that
   * does not serve), `infer-invalid`, `infer-not-ready`, `infer-queue-full`, `infer-deadline`,
   * `infer-failed`, `infer-unsupported`, `model-crashed`.
   */
  infer(as: string, version: string | null, call: InferCall): Promise<Result<InferAnswer>>;
  /** What serves, sorted by name. */
  models(): ServedModel[];
  /** What serves this name, null where nothing does. */
  model(as: string): ServedModel | null;
  /** Requests since the start, of all models, whatever was switched meanwhile. */
  requests(): RequestCounts;
  /** Ends every child. */
  close(): Promise<void>;
}

export interface RequestCounts {
  answered: number;
  /** Refused or failed, for whatever reason. */
  failed: number;
}

interface Loaded {
  release: LoadableRelease;
  version: string;
  manifest: Manifest;
  signature: ModelSignature;
  slot: Slot;
}

interface Entry {
  /** Null while it loads. */
  loaded: Loaded | null;
  loading: Promise<Result<void>>;
  cancelled: boolean;
  /** While it answers copies of live inputs. */
  shadow: Shadow | null;
}

/** Where manifests lie, named by digest (agent/update). */
const manifestPath = (sha256: string): string => `blobs/${sha256}`;
const workFolder = 'work';

/** A fault of the disk under a load or probe is this release's refusal, not the agent's end. */
async function asResult<T>(work: () => Promise<Result<T>>): Promise<Result<T>> {
  try {
    return await work();
  } catch (thrown) {
    const { code, message } = asFleetError(thrown);
    if (code === 'internal') throw thrown;
    return refuse(code, message);
  }
}

export function createInferenceHost(options: InferenceHostOptions): InferenceHost {
  const { clock, log, disk, stateFolder } = options;
  const deadlineMs = options.deadlineMs ?? limits.inferDeadlineMs;
  const queueMax = options.queueMax ?? limits.inferQueueMax;
  const threadsDefault = options.threads ?? Math.max(1, Math.floor(availableParallelism() / 2));
  const entries = new Map<string, Entry>();
  const serving = new Map<string, Loaded>();
  const requests: RequestCounts = { answered: 0, failed: 0 };
  const keyOf = (as: string, manifestSha256: string): string => `${as} ${manifestSha256}`;

  const readManifest = async (release: LoadableRelease): Promise<Result<Manifest>> => {
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
    return refuse(
      'manifest-malformed',
      `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'does not fit'}`,
    );
  };

  /** Admission in a process of its own: a hostile file costs the serving child neither memory nor life. */
  const admit = async (request: ChildRequest & { kind: 'admit' }): Promise<Result<ModelSignature>> => {
    const admitter = startModelProcess(clock);
    const admitted = await admitter.ask(request, [], limits.childStartMs);
    admitter.kill();
    if (!admitted.ok) return admitted;
    const { inputs, outputs } = admitted.value.reply;
    return ok({ inputs, outputs: outputs.filter(({ name }) => !request.excludeOutputs.includes(name)) });
  };

  /** Loads and warms up: the first client must not pay for what the runtime puts off. */
  const openChild = async (
    request: ChildRequest & { kind: 'load' },
    signature: ModelSignature,
    child: ModelProcess,
  ): Promise<Result<ModelProcess>> => {
    let outcome: Result<unknown> = await child.ask(request, [], limits.childStartMs);
    const zeros = zeroInputs(signature);
    if (outcome.ok && zeros !== null) {
      const outputs = signature.outputs.map(({ name }) => name);
      const warm = await child.ask({ kind: 'run', outputs }, zeros, limits.childStartMs);
      // Zeros of size one are no legal input for every model; then it is warm enough without them.
      const alive =
        warm.ok || (warm.refusal.code !== 'model-crashed' && warm.refusal.code !== 'infer-deadline');
      if (!alive) outcome = warm;
    }
    if (outcome.ok) return ok(child);
    child.kill();
    if (outcome.refusal.code === 'infer-deadline') {
      return refuse('model-load-failed', `the model was not ready within ${limits.childStartMs} ms`);
    }
    return outcome;
  };

  const loadRelease = async (release: LoadableRelease, entry: Entry): Promise<Result<void>> => {
    const manifest = await readManifest(release);
    if (!manifest.ok) return manifest;
    const model = release.files.find(({ role }) => role === 'model');
    const version = parseReleaseId(release.releaseId)?.version;
    if (model === undefined || version === undefined)
      return refuse('model-load-failed', 'the release names no model');
    const { excludeOutputs, session } = manifest.value;
    const modelPath = join(stateFolder, model.diskPath);
    const beside = release.files.filter(({ role }) => role === 'external-data');
    // Both processes start at once; the one that serves gets the model only after it was admitted.
    const first = startModelProcess(clock);
    const admitted = await admit({
      kind: 'admit',
      modelPath,
      excludeOutputs,
      externalFiles: beside.map(({ path }) => posix.relative(posix.dirname(model.path), path)),
      memoryBytesMax: promisedMemoryBytes(manifest.value),
    });
    if (!admitted.ok) {
      first.kill();
      return admitted;
    }
    const signature = admitted.value;
    const request: ChildRequest & { kind: 'load' } = {
      kind: 'load',
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
      threads: session.threads ?? threadsDefault,
      providers: session.providers ?? ['cpu'],
    };
    let spare: ModelProcess | null = first;
    const slot = createSlot({
      clock,
      log,
      names: { as: release.as, release: release.releaseId },
      open: () => {
        const child = spare ?? startModelProcess(clock);
        spare = null;
        return openChild(request, signature, child);
      },
      deadlineMs,
      queueMax,
    });
    const started = await slot.start();
    if (!started.ok) return started;
    if (entry.cancelled) {
      await slot.close();
      return refuse('update-superseded', 'unloaded while it was loading');
    }
    entry.loaded = { release, version, manifest: manifest.value, signature, slot };
    return ok();
  };

  const load = async (release: LoadableRelease): Promise<Result<void>> => {
    const key = keyOf(release.as, release.manifestSha256);
    const present = entries.get(key);
    if (present !== undefined) {
      const outcome = await present.loading;
      if (!outcome.ok || present.loaded?.slot.ready() === true) return outcome;
      // Its child died and is on its way back; a second one would only double the memory.
      return {
        ok: false,
        refusal: present.loaded?.slot.trouble() ?? { code: 'infer-not-ready', detail: 'not loaded' },
      };
    }
    const entry: Entry = { loaded: null, loading: Promise.resolve(ok()), cancelled: false, shadow: null };
    entries.set(key, entry);
    entry.loading = asResult(() => loadRelease(release, entry)).then((outcome) => {
      if (!outcome.ok && entries.get(key) === entry) entries.delete(key);
      return outcome;
    });
    return entry.loading;
  };

  const forget = async (key: string): Promise<void> => {
    const entry = entries.get(key);
    if (entry === undefined) return;
    entries.delete(key);
    entry.cancelled = true;
    entry.shadow?.cancel({ code: 'update-superseded', detail: 'the candidate was unloaded' });
    await entry.loaded?.slot.close();
  };

  const inferNow: InferenceHost['infer'] = async (as, version, call) => {
    const served = serving.get(as);
    if (served === undefined) return refuse('infer-unknown-model', `no model ${as} is served here`);
    if (version !== null && version !== served.version) {
      return refuse('infer-unknown-model', `${as} is served in version ${served.version}, not ${version}`);
    }
    const wanted = checkRequest(served.signature, call.inputs, call.outputs);
    if (!wanted.ok) return wanted;
    const ran = await served.slot.run(call.inputs, wanted.value, 'client');
    if (!ran.ok) return ran;
    const { outputs, runMs } = ran.value;
    for (const { shadow, loaded } of entries.values()) {
      if (shadow !== null && loaded?.release.as === as) shadow.offer({ inputs: call.inputs, outputs, runMs });
    }
    return ok({ releaseId: served.release.releaseId, version: served.version, outputs, runMs });
  };

  const describe = ({ release, version, manifest, signature, slot }: Loaded): ServedModel => ({
    as: release.as,
    releaseId: release.releaseId,
    version,
    ready: slot.ready(),
    reason: slot.trouble(),
    pid: slot.pid(),
    inputs: signature.inputs,
    outputs: signature.outputs,
    recipe: manifest,
    counters: slot.counters,
    waiting: slot.waiting(),
    restarts: slot.restarts(),
    memory: { rssBytes: null, limitBytes: null },
    provider: 'cpu',
  });

  return {
    load,

    probe: async (release) => {
      const outcome = await load(release);
      if (!outcome.ok) return outcome;
      const loaded = entries.get(keyOf(release.as, release.manifestSha256))?.loaded;
      if (!loaded) return refuse('infer-not-ready', 'the release was unloaded');
      return asResult(() => probeRelease({ ...loaded, disk, clock }));
    },

    shadow: async (release, policy) => {
      const entry = entries.get(keyOf(release.as, release.manifestSha256));
      const loaded = entry?.loaded;
      if (entry === undefined || !loaded) return refuse('infer-not-ready', 'the candidate is not loaded');
      entry.shadow?.cancel({ code: 'update-superseded', detail: 'shadowing was started again' });
      const shadow = startShadow({
        clock,
        policy,
        candidate: { ...loaded, compare: loaded.manifest.compare },
      });
      entry.shadow = shadow;
      log.emit('info', 'inference.shadow.started', { as: release.as, release: release.releaseId });
      const outcome = await shadow.done;
      if (entry.shadow === shadow) entry.shadow = null;
      return outcome;
    },

    activate: async (as, manifestSha256) => {
      const next = entries.get(keyOf(as, manifestSha256))?.loaded ?? null;
      if (next === null) return refuse('infer-not-ready', 'the release is not loaded');
      const before = serving.get(as);
      if (before === next) return ok();
      if (!next.slot.ready()) {
        return {
          ok: false,
          refusal: next.slot.trouble() ?? { code: 'infer-not-ready', detail: 'not ready' },
        };
      }
      next.slot.beginService();
      serving.set(as, next);
      options.onServing?.();
      log.emit('info', 'inference.activated', { as, release: next.release.releaseId });
      // Requests that came before the switch get their answer from the release they were meant for.
      await before?.slot.idle();
      return ok();
    },

    deactivate: async (as) => {
      const before = serving.get(as);
      if (before === undefined) return;
      serving.delete(as);
      options.onServing?.();
      await before.slot.idle();
      if (serving.get(as) !== before) await forget(keyOf(as, before.release.manifestSha256));
    },

    unload: async (as, manifestSha256) => {
      if (serving.get(as)?.release.manifestSha256 === manifestSha256) return;
      await forget(keyOf(as, manifestSha256));
    },

    healthy: async (as) => {
      const served = serving.get(as);
      if (served === undefined) return refuse('infer-unknown-model', `nothing serves ${as}`);
      const trouble = served.slot.trouble();
      return trouble === null ? ok(served.slot.health()) : { ok: false, refusal: trouble };
    },

    infer: async (as, version, call) => {
      const startedAtMs = clock.mono();
      const releaseId = serving.get(as)?.release.releaseId;
      const answer = await inferNow(as, version, call);
      if (answer.ok) requests.answered += 1;
      else requests.failed += 1;
      if (releaseId !== undefined) {
        options.onRequest?.({
          as,
          releaseId: answer.ok ? answer.value.releaseId : releaseId,
          code: answer.ok ? null : answer.refusal.code,
          latencyMs: clock.mono() - startedAtMs,
        });
      }
      return answer;
    },

    requests: () => ({ ...requests }),

    models: () => [...serving.values()].map(describe).sort((a, b) => (a.as < b.as ? -1 : 1)),

    model: (as) => {
      const served = serving.get(as);
      return served === undefined ? null : describe(served);
    },

    close: async () => {
      serving.clear();
      await Promise.all([...entries.keys()].map(forget));
    },
  };
}
