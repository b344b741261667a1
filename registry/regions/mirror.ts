// Why: the catalogue comes from whichever region has a newer one, verified from the pinned root down as a device does it:
// a mirror needs no trust, and the region that can sign is home, wherever it stands.
// Trusts: shared/trust/tuf. Must never: step back, or write over what changed while it was asking.

import { limits as trustLimits } from '../../shared/kernel/limits.ts';
import { ok, type Result } from '../../shared/kernel/result.ts';
import { refreshCatalogue, type TrustState } from '../../shared/trust/tuf/client.ts';
import { parseTargets } from '../../shared/trust/tuf/metadata.ts';
import type { RegistryCore } from '../core.ts';
import type { RoleFiles } from '../signing/role-files.ts';
import type { RegistryDb } from '../store/open.ts';
import type { RegionAsker } from './asking.ts';
import { readMirrorIn, writeMirrorIn } from './mirror-state.ts';

export interface Mirror {
  /**
   * Takes what that region has beyond what is here. `older`: it is behind. Refusals: every `metadata-…` code and those
   * of the line.
   */
  refresh(from: string, asker: RegionAsker): Promise<Result<'same' | 'taken' | 'older'>>;
  /** Called after a commit that named releases that are not here. */
  onWanted(listener: () => void): void;
}

/** The whole catalogue, with every namespace that its targets name. Nothing is stored. */
export async function refreshWhole(
  state: TrustState,
  asker: Pick<RegionAsker, 'metadata'>,
  nowMs: number,
): Promise<Result<TrustState & { roots: Uint8Array[] }>> {
  const roots: Uint8Array[] = [];
  const saveRoot = async (root: Uint8Array): Promise<void> => {
    roots.push(root);
  };
  const namesIn = (targets: Uint8Array | null): string[] => {
    const parsed = targets === null ? null : parseTargets(targets);
    return parsed?.ok === true ? parsed.value.delegations.map(({ name }) => name) : [];
  };
  const { metadata: fetcher } = asker;
  const known = namesIn(state.targets);
  const first = await refreshCatalogue({ state, fetcher, nowMs, namespaces: known, saveRoot });
  if (!first.ok) return first;
  const fresh = namesIn(first.value.targets).filter((name) => !known.includes(name));
  if (fresh.length === 0) return ok({ ...first.value, roots });
  const namespaces = namesIn(first.value.targets);
  const second = await refreshCatalogue({ state: first.value, fetcher, nowMs, namespaces, saveRoot });
  return second.ok ? ok({ ...second.value, roots }) : second;
}

const same = (a: Uint8Array | null, b: Uint8Array | null): boolean =>
  a === b || (a !== null && b !== null && Buffer.compare(a, b) === 0);

export function createMirror(core: RegistryCore): Mirror {
  const { store, repository, releases, clock, log } = core;
  const { qb } = store;
  const listeners: (() => void)[] = [];
  const within = <T>(work: (db: RegistryDb, files: RoleFiles) => T): Promise<T> =>
    repository.withFiles(null, work);

  return {
    onWanted: (listener) => void listeners.push(listener),

    async refresh(from, asker) {
      // Whatever changes comes with a new timestamp: mostly there is none, and the whole need not be read.
      const offered = await asker.metadata.fetch('timestamp.json', trustLimits.timestampBytesMax);
      if (!offered.ok) return offered;
      const present = await within((db, files) => files.current(db, 'timestamp')?.bytes ?? null);
      if (same(present, offered.value)) return ok('same');
      const held = await within((db, files) => readMirrorIn(db, qb, files));
      if (held === null) return ok('same');
      const refreshed = await refreshWhole(held, asker, clock.wall());
      if (!refreshed.ok) {
        // It mirrors too, and has not come as far.
        return refreshed.refusal.code === 'metadata-rollback' ? ok('older') : refreshed;
      }
      const next = refreshed.value;
      for (const [namespace, refusal] of Object.entries(next.refused ?? {}))
        log.emit('warn', 'trust.refused', { from, namespace, ...refusal });
      const changed =
        next.roots.length > 0 ||
        !same(next.timestamp, held.timestamp) ||
        Object.entries(next.delegated).some(([name, bytes]) => !same(bytes, held.delegated[name] ?? null));
      if (!changed) return ok('same');
      const written = await within((db, files) => {
        const now = readMirrorIn(db, qb, files);
        // Another region's was taken, or this one signed meanwhile: the next look decides again.
        if (now === null || !same(now.timestamp, held.timestamp) || !same(now.root, held.root)) return null;
        const wasHome = files.isHome(db);
        const barrings = writeMirrorIn(db, qb, files, next, clock.wall());
        return { told: releases.barred(db, barrings), wasHome, isHome: files.isHome(db) };
      });
      if (written === null) return ok('same');
      if (next.roots.length > 0) await repository.followRoots();
      if (written.wasHome !== written.isHome)
        log.emit('warn', 'regions.home.changed', { home: written.isHome });
      written.told.after();
      const version = next.numbers?.timestamp ?? 0;
      log.emit('info', 'regions.catalogue.mirrored', { from, timestampVersion: version });
      for (const listener of listeners) listener();
      return ok('taken');
    },
  };
}
