// Why: a step that two publishers must sign waits here for the second: at most one in each namespace.
// Trusts: its callers to have inspected what is kept. Must never: lose a valid signature of the same step.

import type { Clock } from '../../shared/kernel/ports.ts';
import { mergeSignatures } from '../../shared/trust/tuf/repository.ts';
import type { CatalogueRepository } from '../signing/repository.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';

/** Bytes as they are kept. A step that adds no release names none and has no manifest. */
export interface KeptStep {
  namespace: string;
  releaseId: string | null;
  /** Exact bytes of the namespace's next targets metadata. */
  metadata: Uint8Array;
  manifest: Uint8Array | null;
  pushedBy: string;
}

export interface WaitingStep extends KeptStep {
  version: number;
  expiresAtMs: number;
  stepId: string;
  /** What it changes, in words. */
  does: string[];
  signatures: number;
  threshold: number;
  updatedAtMs: number;
}

export interface WaitingSteps {
  /** The step that waits; null where none does, or where it cannot follow the metadata in force any more. */
  find(namespace: string): Promise<WaitingStep | null>;
  /**
   * Keeps the step in place of the one that waits. Where that is the same one, the signatures of both are
   * kept: `metadata` is what is stored now. `replaced` says in words what another one was about.
   */
  keep(step: KeptStep): Promise<{ metadata: Uint8Array; replaced: string[] | null }>;
  clearIn(db: RegistryDb, namespace: string): void;
}

export function createWaitingSteps(parts: {
  store: RegistryStore;
  repository: CatalogueRepository;
  clock: Clock;
}): WaitingSteps {
  const { store, repository, clock } = parts;
  const { qb } = store;

  const rowIn = (db: RegistryDb, namespace: string) =>
    db.first(qb.selectFrom('publisher_steps').selectAll().where('namespace', '=', namespace));

  async function find(namespace: string): Promise<WaitingStep | null> {
    const row = await store.tx((db) => rowIn(db, namespace));
    if (row === undefined) return null;
    const inspected = await repository.inspect(namespace, row.metadata);
    if (!inspected.ok) return null;
    const { version, expiresAtMs, stepId, does, signatures, threshold } = inspected.value;
    return {
      namespace,
      releaseId: row.release_id,
      metadata: row.metadata,
      manifest: row.manifest,
      pushedBy: row.pushed_by,
      updatedAtMs: row.updated_at_ms,
      version,
      expiresAtMs,
      stepId,
      does,
      signatures,
      threshold,
    };
  }

  return {
    find,

    async keep(step) {
      const { namespace } = step;
      const before = await find(namespace);
      const publisher = await repository.publisher(namespace);
      const keys = (publisher?.keys ?? []).map((key) => new Uint8Array(Buffer.from(key, 'hex')));
      return store.tx((db) => {
        const present = rowIn(db, namespace);
        const merged = present === undefined ? null : mergeSignatures(present.metadata, step.metadata, keys);
        const metadata = merged ?? step.metadata;
        const row = {
          release_id: step.releaseId,
          metadata,
          manifest: step.manifest,
          pushed_by: step.pushedBy,
          updated_at_ms: clock.wall(),
        };
        db.run(
          qb
            .insertInto('publisher_steps')
            .values({ namespace, ...row })
            .onConflict((conflict) => conflict.column('namespace').doUpdateSet(row)),
        );
        return { metadata, replaced: merged === null ? (before?.does ?? null) : null };
      });
    },

    clearIn(db, namespace) {
      db.run(qb.deleteFrom('publisher_steps').where('namespace', '=', namespace));
    },
  };
}
