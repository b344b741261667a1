// Why: a stand-in for the inference host of one device: children that load, prove themselves, serve, hang, crash and
// die with the power. Trusts: the publisher for how a release behaves, the world for what goes wrong by chance.
// Must never: load bytes that are not the release's, or serve what was not activated.

import type { CoreRuntime, RuntimeEvents } from '../../agent/core.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Clock, LoadableRelease, ProbeEvidence, ShadowEvidence } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { ReleaseKind } from '../fleet-world/publisher.ts';
import { type Incarnation, latencyMs, type World } from '../world.ts';

/** Told of each call at the moment it is made, when the journal must already ask for it. */
export interface RuntimeWitness {
  loading(release: LoadableRelease): void;
  probing(as: string, manifestSha256: string): void;
  shadowing(as: string, manifestSha256: string): void;
  activating(as: string, manifestSha256: string): void;
  deactivating(as: string): void;
  /** It serves from now on. */
  serves(as: string, manifestSha256: string): void;
  /** The bytes of a file that is loaded are not those of its digest. */
  wrongBytes(release: LoadableRelease, path: string): void;
}

export interface SimRuntime extends CoreRuntime {
  serving: ReadonlyMap<string, string>;
  children: ReadonlySet<string>;
  /** Somebody asks the model; true where it answered. */
  ask(as: string): boolean;
}

export interface SimRuntimeParts {
  world: World;
  of: Incarnation;
  clock: Clock;
  events: RuntimeEvents;
  /** The bytes of a file on this device now. */
  peek(path: string): Uint8Array | null;
  /** Whether a bit of it turned over by itself. */
  rotted(path: string): boolean;
  kindOf(manifestSha256: string): ReleaseKind | undefined;
  /** `NS/NAME@VERSION` of these bytes. */
  releaseOf(manifestSha256: string): string;
  witness: RuntimeWitness;
}

const MiB = 1024 * 1024;
const goodEvidence: ProbeEvidence = {
  goldenCases: 4,
  goldenPassed: 4,
  firstFailure: null,
  latencyP50Ms: 3,
  latencyP95Ms: 5,
  memoryBytesPeak: 50 * MiB,
};
/** A child that hangs is ended by the host after this. */
const hungMs = 60_000;
/** So many deaths of one release are a crash loop (`crashLoopDeaths`). */
const deathsMax = 3;

export function createSimRuntime(parts: SimRuntimeParts): SimRuntime {
  const { world, of, events, witness, kindOf } = parts;
  const { node } = of;
  const children = new Set<string>();
  const serving = new Map<string, string>();
  /** Loads by child; an unload ends those that began before it took effect. */
  const underWay = new Map<string, { cancelled: boolean }[]>();
  const deaths = new Map<string, number>();
  const counts = new Map<string, { requests: number; errors: number }>();
  let answered = 0;
  let failed = 0;
  let calls = 0;

  const call = <T>(kind: string, detail: string, low: number, high: number, effect: () => T): Promise<T> => {
    calls += 1;
    const slow = world.fault('device.slow', node, kind) ? 100 : 1;
    const ms = slow * latencyMs(world, low, high, 'runtime', node, of.number, calls);
    return world.call(of, `runtime.${kind}`, detail, ms, effect);
  };
  const childOf = (as: string, manifestSha256: string): string => `${as} ${manifestSha256}`;
  const short = (release: LoadableRelease): string => `${release.as} ${release.releaseId}`;

  /** What a child opens is what was signed. False: a file is gone. */
  function opens(release: LoadableRelease): boolean {
    const manifest = {
      path: 'manifest',
      sha256: release.manifestSha256,
      diskPath: `blobs/${release.manifestSha256}`,
    };
    for (const file of [...release.files, manifest]) {
      const bytes = parts.peek(file.diskPath);
      if (bytes === null) return false;
      // A file that rots after it was verified is the disk's fault: the model's own process reads it.
      if (sha256Hex(bytes) !== file.sha256 && !parts.rotted(file.diskPath))
        witness.wrongBytes(release, file.path);
    }
    return true;
  }

  function refusedByChance(): { ok: false; refusal: Refusal } | null {
    if (world.fault('model.hang', node)) return refuse('infer-deadline', 'simulated: it hangs and was ended');
    if (world.fault('model.crash', node)) return refuse('model-crashed', 'simulated: SIGSEGV');
    if (world.fault('model.memory', node))
      return refuse('model-memory-exceeded', 'simulated: over its limit');
    return null;
  }

  async function load(release: LoadableRelease): Promise<Result<void>> {
    const loading = { cancelled: false };
    const child = childOf(release.as, release.manifestSha256);
    underWay.set(child, [...(underWay.get(child) ?? []), loading]);
    witness.loading(release);
    const chance = refusedByChance();
    const [low, high] =
      chance !== null && chance.refusal.code === 'infer-deadline' ? [hungMs, hungMs] : [20, 900];
    return call('load', short(release), low, high, (): Result<void> => {
      if (loading.cancelled) return refuse('update-superseded', 'unloaded while it was loading');
      if (children.has(child)) return ok();
      if (!opens(release)) return refuse('model-load-failed', 'a file is not there');
      if (kindOf(release.manifestSha256) === 'no-load')
        return refuse('model-invalid', 'the graph is not accepted');
      if (chance !== null) return chance;
      children.add(child);
      return ok();
    });
  }

  function evidenceOf(manifestSha256: string): ProbeEvidence {
    const kind = kindOf(manifestSha256);
    if (kind === 'bad-golden')
      return { ...goodEvidence, goldenPassed: 3, firstFailure: 'case 2: label differs' };
    if (kind === 'slow') return { ...goodEvidence, latencyP95Ms: 400 };
    if (kind === 'hungry') return { ...goodEvidence, memoryBytesPeak: 900 * MiB };
    if (world.fault('model.wrong', node))
      return { ...goodEvidence, goldenPassed: 2, firstFailure: 'case 1: differs' };
    if (world.fault('model.slow', node)) return { ...goodEvidence, latencyP95Ms: 150 };
    return goodEvidence;
  }

  function shadowEvidence(manifestSha256: string, wanted: number): ShadowEvidence {
    // Nobody asks the model often enough.
    const requests = world.fault('model.idle', node) ? Math.floor(wanted / 4) : wanted;
    const compared = requests;
    return {
      requests,
      compared,
      skipped: 0,
      failed: 0,
      agreement: kindOf(manifestSha256) === 'disagrees' ? 0.5 : 1,
      firstFailure: null,
      latencyP95Ms: 2,
      activeLatencyP95Ms: 2,
      differences: [],
    };
  }

  /** The process of what serves died; it comes back by itself unless it dies again and again. */
  function died(as: string, manifestSha256: string): void {
    const child = childOf(as, manifestSha256);
    const times = (deaths.get(child) ?? 0) + 1;
    deaths.set(child, times);
    const looping = times >= deathsMax;
    const refusal = looping
      ? refuse('model-crash-loop', 'simulated: it keeps dying').refusal
      : refuse('infer-not-ready', 'simulated: it died').refusal;
    if (looping) children.delete(child);
    world.note(`${node} ${as} died ${times}`);
    events.onTrouble({ as, manifestSha256, refusal });
  }

  return {
    serving,
    children,
    load,
    probe: (release) => {
      witness.probing(release.as, release.manifestSha256);
      if (!children.has(childOf(release.as, release.manifestSha256)))
        world.violate(`${node}: ${short(release)} is probed before it is loaded`);
      const chance = refusedByChance();
      return call('probe', short(release), 50, 2_000, (): Result<ProbeEvidence> => {
        if (!children.has(childOf(release.as, release.manifestSha256)))
          return refuse('model-crashed', 'no child of this release runs');
        return chance ?? ok(evidenceOf(release.manifestSha256));
      });
    },
    shadow: (release, policy) => {
      witness.shadowing(release.as, release.manifestSha256);
      const chance = refusedByChance();
      return call('shadow', short(release), 100, 5_000, (): Result<ShadowEvidence> => {
        if (!children.has(childOf(release.as, release.manifestSha256)))
          return refuse('model-crashed', 'no child of this release runs');
        return chance ?? ok(shadowEvidence(release.manifestSha256, policy.requests));
      });
    },
    activate: (as, manifestSha256) => {
      witness.activating(as, manifestSha256);
      return call('activate', `${as} ${manifestSha256.slice(0, 8)}`, 1, 50, (): Result<void> => {
        if (!children.has(childOf(as, manifestSha256)))
          return refuse('infer-not-ready', 'no child of this release');
        serving.set(as, manifestSha256);
        counts.set(as, { requests: 0, errors: 0 });
        witness.serves(as, manifestSha256);
        events.onServing();
        return ok();
      });
    },
    deactivate: (as) => {
      witness.deactivating(as);
      return call('deactivate', as, 1, 10, () => {
        serving.delete(as);
        events.onServing();
      });
    },
    unload: (as, manifestSha256) =>
      call('unload', `${as} ${manifestSha256.slice(0, 8)}`, 1, 10, () => {
        if (serving.get(as) === manifestSha256)
          world.violate(`${node}: the serving release of ${as} was unloaded`);
        children.delete(childOf(as, manifestSha256));
        for (const loading of underWay.get(childOf(as, manifestSha256)) ?? []) loading.cancelled = true;
      }),
    healthy: (as) =>
      call('healthy', as, 1, 20, () => {
        const active = serving.get(as);
        if (active === undefined) return refuse('infer-not-ready', 'nothing serves');
        if (kindOf(active) === 'fails-in-service') return refuse('model-crashed', 'three times');
        const { requests, errors } = counts.get(as) ?? { requests: 0, errors: 0 };
        return ok({ requests, errors, latencyP95Ms: 4 });
      }),
    ask: (as) => {
      const active = serving.get(as);
      if (active === undefined || !children.has(childOf(as, active))) {
        failed += 1;
        return false;
      }
      const kind = kindOf(active);
      const crashes = kind === 'crashes-in-service' || world.fault('model.crash', node, as);
      const count = counts.get(as) ?? { requests: 0, errors: 0 };
      counts.set(as, count);
      count.requests += 1;
      if (crashes) {
        count.errors += 1;
        failed += 1;
        died(as, active);
        return false;
      }
      answered += 1;
      events.onRequest({ as, releaseId: parts.releaseOf(active), code: null, latencyMs: 4 });
      return true;
    },
    requests: () => ({ answered, failed }),
    close: async () => {
      children.clear();
      serving.clear();
    },
  };
}
