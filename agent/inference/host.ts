// Why: the Runtime port on real children: loads, probes, switches and serves the releases of this device.
// Trusts: files that the update machine verified, under the digests it names. Must never: run a model in
// this process, or serve a release that was not activated.

import { availableParallelism } from 'node:os';
import { systemPower } from '../../shared/host/power.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { LoadableRelease } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { batchTerms } from './batching.ts';
import { createEnergyMeter } from './energy.ts';
import { createHistories } from './history.ts';
import type { InferenceHost, InferenceHostOptions } from './host-port.ts';
import { createMemoryJudge, memoryLimits } from './memory-budget.ts';
import { createMemoryWatch, deviceMemoryBytes, type MemoryWatch } from './memory-watch.ts';
import { type Admitted, admitRelease } from './opening.ts';
import { probeRelease } from './probe.ts';
import { type Comparison, createSampler } from './sampler.ts';
import type { InferCall, RequestCounts, ServedModel } from './served.ts';
import { type Shadow, startShadow } from './shadow.ts';
import { checkRequest, type ModelSignature } from './signature.ts';
import { createSlot, type RunAnswer, type Slot } from './slot.ts';
import { createTallies } from './tallies.ts';
import type { Tally } from './tally.ts';
import { createTurns, threadsOf } from './turns.ts';

export type { InferenceHost, InferenceHostOptions } from './host-port.ts';
export type { InferAnswer, InferCall, RequestCounts, ServedModel } from './served.ts';

interface Loaded {
  release: LoadableRelease;
  version: string;
  manifest: Manifest;
  signature: ModelSignature;
  slot: Slot;
  limitBytes: number;
  /** Counts inputs and outputs; null where the release has no reference profile. */
  tally: Tally | null;
}

interface Entry {
  as: string;
  /** As soon as there is one. */
  slot: Slot | null;
  /** Null while it loads. */
  loaded: Loaded | null;
  loading: Promise<Result<void>>;
  cancelled: boolean;
  /** While it answers copies of live inputs. */
  shadow: Shadow | null;
}

const unloaded = refuse('update-superseded', 'unloaded while it was loading');

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
  const deviceBytes = options.deviceBytes ?? deviceMemoryBytes();
  const recycle = { softBytes: null, requests: null, everyMs: limits.recycleEveryMs, ...options.recycle };
  // Asked once: it is a system call, and turns are taken with each request.
  const cores = availableParallelism();
  const turns = createTurns({
    clock,
    threads: options.threadsAtOnce ?? cores,
    turnMs: limits.inferTurnMs,
  });
  const watch = createMemoryWatch(clock, {
    everyMs: options.memoryLookMs ?? limits.memoryLookMs,
    askMs: deadlineMs,
  });
  /** Of those that load: that is when a model takes what it takes, and it takes it at once. */
  const loadWatch = createMemoryWatch(clock, {
    everyMs: Math.min(options.memoryLookMs ?? limits.loadLookMs, limits.loadLookMs),
    askMs: deadlineMs,
  });
  const entries = new Map<string, Entry>();
  const serving = new Map<string, Loaded>();
  const histories = createHistories(clock);
  const tallies = createTallies({ clock, disk, log });
  const energy = createEnergyMeter({ clock, power: options.power ?? systemPower() });
  const sampler = options.sampling === undefined ? null : createSampler({ clock, ...options.sampling });
  /** Releases that no longer serve and answer those who came before. */
  const draining = new Map<string, Promise<void>>();
  const requests: RequestCounts = { answered: 0, failed: 0 };
  const keyOf = (as: string, manifestSha256: string): string => `${as} ${manifestSha256}`;

  const onTrouble = (release: LoadableRelease, refusal: Refusal): void => {
    const { as, manifestSha256 } = release;
    if (serving.get(as)?.release.manifestSha256 === manifestSha256)
      options.onTrouble?.({ as, manifestSha256, refusal });
  };

  /** Looks at the CPU time of a child as often as at its memory. */
  const alsoEnergy = ({ as, releaseId }: LoadableRelease): MemoryWatch => ({
    add: (child, look) => {
      const followed = child.pid === null ? null : energy.follow(as, releaseId, child.pid);
      const unwatch = watch.add(child, (rssBytes) => {
        followed?.look();
        look(rssBytes);
      });
      return () => {
        followed?.end();
        unwatch();
      };
    },
  });

  const openSlot = (release: LoadableRelease, key: string, admitted: Admitted): Slot => {
    const { manifest, signature } = admitted;
    const { servingBytes, tryingBytes } = memoryLimits(manifest, deviceBytes);
    const limitBytes = () =>
      serving.get(release.as)?.release.manifestSha256 === release.manifestSha256 ? servingBytes : tryingBytes;
    const wanted = manifest.session.threads ?? options.threads;
    const threads = (): number =>
      threadsOf(wanted, cores, () => new Set([...entries.values()].map((entry) => entry.as)).size);
    return createSlot({
      clock,
      log,
      names: { as: release.as, release: release.releaseId },
      open: admitted.open({ threads, limitBytes, watch: loadWatch }),
      ...histories.of(key),
      memory: { watch: alsoEnergy(release), judge: createMemoryJudge(recycle), limitBytes },
      turns,
      threads,
      batch: batchTerms(signature, manifest.session),
      deadlineMs,
      queueMax,
      onTrouble: (refusal) => onTrouble(release, refusal),
    });
  };

  const loadRelease = async (release: LoadableRelease, entry: Entry): Promise<Result<void>> => {
    const key = keyOf(release.as, release.manifestSha256);
    const admitted = await admitRelease(release, { clock, log, disk, stateFolder });
    if (!admitted.ok) return admitted;
    if (entry.cancelled) {
      admitted.value.abandon();
      return unloaded;
    }
    const { version, manifest, signature } = admitted.value;
    const slot = openSlot(release, key, admitted.value);
    entry.slot = slot;
    const started = await slot.start();
    if (!started.ok) return histories.loadFailed(key, started.refusal);
    if (entry.cancelled) {
      await slot.close();
      return unloaded;
    }
    const limitBytes = memoryLimits(manifest, deviceBytes).servingBytes;
    const tally = await tallies.open(release.as, release.releaseId, manifest, signature);
    if (entry.cancelled) {
      // Whoever loads it anew goes on with the same tally.
      if (tally !== null && !entries.has(key)) tallies.close(tally);
      return unloaded;
    }
    entry.loaded = { release, version, manifest, signature, slot, limitBytes, tally };
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
    const entry: Entry = {
      as: release.as,
      slot: null,
      loaded: null,
      loading: Promise.resolve(ok()),
      cancelled: false,
      shadow: null,
    };
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
    const tally = entry.loaded?.tally ?? null;
    if (tally !== null) tallies.close(tally);
    await entry.slot?.close();
  };

  const drain = async ({ release, slot }: Loaded): Promise<void> => {
    const key = keyOf(release.as, release.manifestSha256);
    const drained = slot.idle();
    draining.set(key, drained);
    await drained;
    if (draining.get(key) === drained) draining.delete(key);
  };

  const ask = (
    served: Loaded,
    version: string | null,
    call: InferCall,
  ): Result<RunAnswer> | Promise<Result<RunAnswer>> => {
    if (version !== null && version !== served.version) {
      const { as } = served.release;
      return refuse('infer-unknown-model', `${as} is served in version ${served.version}, not ${version}`);
    }
    const wanted = checkRequest(served.signature, call.inputs, call.outputs);
    if (wanted.ok) return served.slot.run(call.inputs, wanted.value, 'client', call);
    served.slot.refused(wanted.refusal);
    return wanted;
  };

  const offerToShadows = (
    as: string,
    inputs: Tensor[],
    { outputs, runMs }: RunAnswer,
  ): Promise<Comparison | null>[] => {
    const compared: Promise<Comparison | null>[] = [];
    for (const { shadow, loaded } of entries.values()) {
      if (shadow === null || loaded?.release.as !== as) continue;
      const candidate = loaded.release.releaseId;
      const agreement = shadow.offer({ inputs, outputs, runMs });
      if (agreement !== null)
        compared.push(agreement.then((score) => (score === null ? null : { candidate, agreement: score })));
    }
    return compared;
  };

  const describe = ({ release, version, manifest, signature, slot, limitBytes }: Loaded): ServedModel => ({
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
    memory: { rssBytes: slot.rssBytes(), limitBytes },
    provider: slot.provider() ?? 'none',
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
      if (before !== undefined) await drain(before);
      return ok();
    },

    deactivate: async (as) => {
      const before = serving.get(as);
      if (before === undefined) return;
      serving.delete(as);
      options.onServing?.();
      await drain(before);
      if (serving.get(as) !== before) await forget(keyOf(as, before.release.manifestSha256));
    },

    unload: async (as, manifestSha256) => {
      if (serving.get(as)?.release.manifestSha256 === manifestSha256) return;
      const key = keyOf(as, manifestSha256);
      await draining.get(key);
      if (serving.get(as)?.release.manifestSha256 !== manifestSha256) await forget(key);
    },

    healthy: async (as) => {
      const served = serving.get(as);
      if (served === undefined) return refuse('infer-unknown-model', `nothing serves ${as}`);
      const trouble = served.slot.trouble();
      return trouble === null ? ok(served.slot.health()) : { ok: false, refusal: trouble };
    },

    ahead: (as, version, whole) => {
      const served = serving.get(as);
      if (served === undefined || (version !== null && version !== served.version)) return null;
      return served.slot.ahead(whole);
    },

    infer: async (as, version, call) => {
      const startedAtMs = clock.mono();
      const served = serving.get(as);
      if (served === undefined) {
        requests.failed += 1;
        return refuse('infer-unknown-model', `no model ${as} is served here`);
      }
      const { releaseId } = served.release;
      const ran = await ask(served, version, call);
      if (ran.ok) {
        requests.answered += 1;
        energy.answered(as, releaseId, served.manifest.energy);
        served.tally?.count(call.inputs, ran.value.outputs, ran.value.runMs);
        const compared = offerToShadows(as, call.inputs, ran.value);
        if (sampler?.wants(releaseId) === true) {
          const { inputs, requestId = null } = call;
          const { outputs } = ran.value;
          sampler.answered({ as, releaseId, requestId, inputs, outputs, tally: served.tally, compared });
        }
      } else requests.failed += 1;
      options.onRequest?.({
        as,
        releaseId,
        code: ran.ok ? null : ran.refusal.code,
        latencyMs: clock.mono() - startedAtMs,
      });
      return ran.ok ? ok({ releaseId, version: served.version, ...ran.value }) : ran;
    },

    requests: () => ({ ...requests }),

    useSampling: (rules) => sampler?.use(rules),

    takeWindow: () => [...tallies.take(), ...energy.take(), ...(sampler?.take() ?? [])],

    models: () => [...serving.values()].map(describe).sort((a, b) => (a.as < b.as ? -1 : 1)),

    model: (as) => {
      const served = serving.get(as);
      return served === undefined ? null : describe(served);
    },

    close: async () => {
      sampler?.stop();
      serving.clear();
      await Promise.all([...entries.keys()].map(forget));
    },
  };
}
