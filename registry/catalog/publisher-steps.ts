// Why: one way for a namespace's next metadata into the catalogue, whether it adds a release or only says
// something about those that are there. Trusts: signing/repository.ts for every check.
// Must never: serve a step below its threshold, or forget in which transaction releases were barred.

import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { readPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import { stepIdOf } from '../../shared/trust/tuf/publisher-review.ts';
import type { PublisherStepTaken } from '../../shared/wire/http.ts';
import type { CatalogueRepository, InspectedPush } from '../signing/repository.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import { type Barring, barIn } from './barred.ts';
import { createWaitingSteps, type KeptStep, type WaitingSteps } from './waiting-steps.ts';

/** What became of a step. `replaced`: in words, what waited in its place and is gone. */
export interface SettledStep {
  status: 'accepted' | 'awaiting-signatures';
  step: InspectedPush;
  replaced: string[] | null;
}

export interface BarringListener {
  /** In the transaction that bars them. */
  within?(db: RegistryDb, barring: Barring): void;
  /** After it is durable. */
  after?(): void;
}

export interface PublisherSteps {
  waiting: WaitingSteps;
  /**
   * Takes the step, or keeps it until enough publishers have signed. `ready` runs before it is taken,
   * `alongside` in the same transaction. Refusals: those of `CatalogueRepository.inspect`, and of `ready`.
   */
  settle(
    step: KeptStep,
    hooks?: {
      ready?(): Promise<Result<unknown>>;
      alongside?(db: RegistryDb, accepted: InspectedPush): void;
    },
  ): Promise<Result<SettledStep>>;
  /**
   * A step that adds no release: floors, withdrawals, a renewal. The very same step again gives the same
   * answer. Refusals: `input-invalid` (it adds a release), and those of `CatalogueRepository.inspect`.
   */
  take(step: {
    namespace: string;
    metadata: Uint8Array;
    pushedBy: string;
  }): Promise<Result<PublisherStepTaken>>;
  /** Whether exactly these bytes were taken before, as after an answer that was lost. */
  wasTaken(namespace: string, metadata: Uint8Array): Promise<boolean>;
  /** Returns how to stop. */
  onBarred(listener: BarringListener): () => void;
  /** Tells the listeners of what was barred by metadata that came another way; `after` is called when it is durable. */
  barred(db: RegistryDb, barrings: readonly Barring[]): { after(): void };
}

export function createPublisherSteps(parts: {
  store: RegistryStore;
  repository: CatalogueRepository;
  clock: Clock;
  log: Log;
}): PublisherSteps {
  const { store, repository, log } = parts;
  const { qb } = store;
  const waiting = createWaitingSteps(parts);
  const listeners = new Set<BarringListener>();

  const settle: PublisherSteps['settle'] = async (step, hooks = {}) => {
    const { namespace } = step;
    let { metadata } = step;
    let replaced: string[] | null = null;
    for (;;) {
      const inspected = await repository.inspect(namespace, metadata);
      if (!inspected.ok) return inspected;
      const { stepId, signatures, threshold } = inspected.value;
      if (signatures >= threshold) {
        const before = await waiting.find(namespace);
        if (before !== null && before.stepId !== stepId) replaced = before.does;
        const accepted = await accept(step, metadata, hooks);
        return accepted.ok ? ok({ status: 'accepted', step: accepted.value, replaced }) : accepted;
      }
      const kept = await waiting.keep({ ...step, metadata });
      replaced ??= kept.replaced;
      // Another publisher's signature was there already: together they may be enough.
      if (Buffer.compare(kept.metadata, metadata) !== 0) {
        metadata = kept.metadata;
        continue;
      }
      log.emit('info', 'publisher.step.waiting', { namespace, stepId, signatures, threshold, replaced });
      return ok({ status: 'awaiting-signatures', step: inspected.value, replaced });
    }
  };

  async function accept(
    step: KeptStep,
    metadata: Uint8Array,
    hooks: NonNullable<Parameters<PublisherSteps['settle']>[1]>,
  ): Promise<Result<InspectedPush>> {
    const { namespace, pushedBy } = step;
    const ready = (await hooks.ready?.()) ?? ok();
    if (!ready.ok) return ready;
    let barrings: Barring[] = [];
    const accepted = await repository.acceptPublisherMetadata(namespace, metadata, (db, final) => {
      hooks.alongside?.(db, final);
      barrings = barIn(db, qb, namespace, final);
      for (const barring of barrings) for (const listener of listeners) listener.within?.(db, barring);
      // Whatever waited was made for the version that this one replaces.
      waiting.clearIn(db, namespace);
    });
    if (!accepted.ok) return accepted;
    const { version, stepId, does } = accepted.value;
    log.emit('info', 'publisher.step.accepted', { namespace, version, stepId, does, user: pushedBy });
    if (barrings.length > 0) for (const listener of listeners) listener.after?.();
    return accepted;
  }

  async function wasTaken(namespace: string, metadata: Uint8Array): Promise<boolean> {
    const read = readPublisherTargets(metadata);
    if (!read.ok) return false;
    const stored = await repository.file(`${read.value.version}.${namespace}.json`);
    return stored !== null && Buffer.compare(stored, metadata) === 0;
  }

  return {
    waiting,
    settle,
    wasTaken,

    async take({ namespace, metadata, pushedBy }) {
      const inspected = await repository.inspect(namespace, metadata);
      if (!inspected.ok) {
        const again =
          inspected.refusal.code === 'metadata-version-invalid' && (await wasTaken(namespace, metadata));
        return again ? takenBefore(repository, namespace, metadata) : inspected;
      }
      if (inspected.value.added.length > 0) {
        return refuse(
          'input-invalid',
          'this step adds a release: send it with its manifest to /api/v1/releases',
        );
      }
      const settled = await settle({ namespace, metadata, pushedBy, releaseId: null, manifest: null });
      if (!settled.ok) return settled;
      const { status, step, replaced } = settled.value;
      const { version, stepId, signatures, threshold } = step;
      const answer = { status, namespace, version, stepId, signatures, threshold };
      return ok(replaced === null ? answer : { ...answer, replaced });
    },

    onBarred(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },

    barred(db, barrings) {
      for (const barring of barrings) for (const listener of listeners) listener.within?.(db, barring);
      return {
        after: () => {
          if (barrings.length > 0) for (const listener of listeners) listener.after?.();
        },
      };
    },
  };
}

/** The answer that was lost, once more. */
async function takenBefore(
  repository: CatalogueRepository,
  namespace: string,
  metadata: Uint8Array,
): Promise<Result<PublisherStepTaken>> {
  const read = readPublisherTargets(metadata);
  if (!read.ok) return read;
  const { version, signatures } = read.value;
  const threshold = (await repository.publisher(namespace))?.threshold ?? 1;
  return ok({
    status: 'accepted',
    namespace,
    version,
    stepId: stepIdOf(read.value),
    signatures: Math.max(threshold, signatures.length),
    threshold,
  });
}
