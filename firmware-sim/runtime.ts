// Why: a stand-in for the inference host: children that load, prove themselves, serve and die with the
// power. Trusts: the catalogue for how a release behaves. Must never: load bytes that are not the release's.

import { sha256Hex } from '../shared/crypto/digests.ts';
import type { LoadableRelease, Runtime } from '../shared/kernel/ports.ts';
import { ok, refuse } from '../shared/kernel/result.ts';
import { type Catalogue, loadRefusal } from './catalogue.ts';
import type { SimDisk } from './disk.ts';
import { agreeing } from './load/light-host.ts';
import { type Incarnation, latencyMs, type World } from './world.ts';

/** Told of each call at the moment it is made, when the journal must already ask for it. */
export interface RuntimeWitness {
  loading(as: string, manifestSha256: string): void;
  probing(as: string, manifestSha256: string): void;
  shadowing(as: string, manifestSha256: string): void;
  activating(as: string, manifestSha256: string): void;
  deactivating(as: string): void;
}

export interface SimRuntime extends Runtime {
  serving: ReadonlyMap<string, string>;
  /** `as manifestSha256` of every child that runs. */
  children: ReadonlySet<string>;
}

export interface SimRuntimeParts {
  world: World;
  of: Incarnation;
  disk: SimDisk;
  catalogue: Catalogue;
  witness: RuntimeWitness;
}

export function createSimRuntime({ world, of, disk, catalogue, witness }: SimRuntimeParts): SimRuntime {
  const children = new Set<string>();
  const serving = new Map<string, string>();
  /** Loads by child; an unload ends those that began before it took effect. */
  const underWay = new Map<string, { cancelled: boolean }[]>();
  let calls = 0;

  const call = <T>(kind: string, detail: string, low: number, high: number, effect: () => T): Promise<T> => {
    calls += 1;
    const ms = latencyMs(world, low, high, 'runtime', of.number, calls);
    return world.call(of, `runtime.${kind}`, detail, ms, effect);
  };
  const childOf = (as: string, manifestSha256: string) => `${as} ${manifestSha256}`;
  const short = (release: LoadableRelease) => `${release.as} ${release.releaseId}`;

  /** The invariant behind "verify every byte": what a child opens is what was signed. False: a file is gone. */
  function opens(release: LoadableRelease): boolean {
    const manifest = { sha256: release.manifestSha256, diskPath: `blobs/${release.manifestSha256}` };
    for (const file of [...release.files, manifest]) {
      const bytes = disk.peek(file.diskPath);
      if (bytes === null) return false;
      if (sha256Hex(bytes) !== file.sha256) world.violate(`${short(release)} was loaded with wrong bytes`);
    }
    return true;
  }

  return {
    serving,
    children,
    load: (release) => {
      const loading = { cancelled: false };
      const child = childOf(release.as, release.manifestSha256);
      underWay.set(child, [...(underWay.get(child) ?? []), loading]);
      witness.loading(release.as, release.manifestSha256);
      return call('load', short(release), 20, 900, () => {
        const kind = catalogue.ofManifest(release.manifestSha256)?.kind;
        if (loading.cancelled) return refuse('update-superseded', 'unloaded while it was loading');
        if (!opens(release)) return refuse('model-load-failed', 'a file is not there');
        const refusal = kind === undefined ? null : loadRefusal(kind);
        if (refusal !== null) return { ok: false, refusal };
        children.add(child);
        return ok();
      });
    },
    probe: (release) => {
      witness.probing(release.as, release.manifestSha256);
      return call('probe', short(release), 50, 2_000, () => {
        const known = catalogue.ofManifest(release.manifestSha256);
        if (known === undefined || !children.has(childOf(release.as, release.manifestSha256))) {
          return refuse('model-crashed', 'no child of this release runs');
        }
        return ok(known.evidence);
      });
    },
    shadow: (release, policy) => {
      witness.shadowing(release.as, release.manifestSha256);
      return call('shadow', short(release), 100, 5_000, () => {
        const known = catalogue.ofManifest(release.manifestSha256);
        if (known === undefined || !children.has(childOf(release.as, release.manifestSha256)))
          return refuse('model-crashed', 'no child of this release runs');
        const evidence = agreeing(policy.requests);
        return ok(known.kind === 'disagrees' ? { ...evidence, agreement: 0.5 } : evidence);
      });
    },
    activate: (as, manifestSha256) => {
      witness.activating(as, manifestSha256);
      return call('activate', `${as} ${manifestSha256.slice(0, 8)}`, 1, 50, () => {
        if (!children.has(childOf(as, manifestSha256)))
          return refuse('infer-not-ready', 'no child of this release');
        serving.set(as, manifestSha256);
        return ok();
      });
    },
    deactivate: (as) => {
      witness.deactivating(as);
      return call('deactivate', as, 1, 10, () => {
        serving.delete(as);
      });
    },
    unload: (as, manifestSha256) =>
      call('unload', `${as} ${manifestSha256.slice(0, 8)}`, 1, 10, () => {
        if (serving.get(as) === manifestSha256) world.violate(`the serving release of ${as} was unloaded`);
        children.delete(childOf(as, manifestSha256));
        for (const loading of underWay.get(childOf(as, manifestSha256)) ?? []) loading.cancelled = true;
      }),
    healthy: (as) =>
      call('healthy', as, 1, 20, () => {
        const active = serving.get(as);
        if (active === undefined) return refuse('infer-not-ready', 'nothing serves');
        if (catalogue.ofManifest(active)?.kind === 'fails-in-service')
          return refuse('model-crashed', 'three times');
        return ok({ requests: 10, errors: 0, latencyP95Ms: 4 });
      }),
  };
}
