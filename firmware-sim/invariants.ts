// Why: what must hold at every moment and at the end, stated apart from the code it judges.
// Trusts: the durable journal, the true catalogue and the disk. Must never: pass because nothing was seen.

import { type MachineState, servingTarget } from '../agent/update/machine.ts';
import { sha256Hex } from '../shared/crypto/digests.ts';
import type { Assignment } from '../shared/wire/messages.ts';
import { type Catalogue, outcomes, type SimRelease } from './catalogue.ts';
import type { SimDisk } from './disk.ts';
import type { RuntimeWitness, SimRuntime } from './runtime.ts';
import type { World } from './world.ts';

/** Where one model ended: compared between the run with cuts and the one without. */
export interface ModelEnd {
  phase: string;
  active: string | null;
  lastGood: string | null;
  target: string | null;
  reason: string | null;
}
export type End = Record<string, ModelEnd>;

export interface Invariants {
  witness: RuntimeWitness;
  /** The journal as it stands after a commit. */
  committed(machines: readonly MachineState[]): void;
  assigned(assignment: Assignment): void;
  /** Right after a power cut, before the next boot. */
  afterCut(): void;
  /** When nothing moves any more. */
  atRest(runtime: SimRuntime): void;
  end(): End;
}

export interface InvariantParts {
  world: World;
  catalogue: Catalogue;
  disk: SimDisk;
  journalWritesMax: number;
}

const needFiles: ReadonlySet<string> = new Set(['verifying', 'staging', 'probing', 'shadowing', 'switching']);

export function createInvariants({ world, catalogue, disk, journalWritesMax }: InvariantParts): Invariants {
  let durable = new Map<string, MachineState>();
  const everAssigned = new Set<string>();

  const require = (condition: boolean, message: string) => {
    if (!condition) world.violate(message);
  };
  const nameOf = (manifestSha256: string) =>
    catalogue.ofManifest(manifestSha256)?.key ?? manifestSha256.slice(0, 8);

  /** Both authorities named it for this model, and nothing about it should have stopped it earlier. */
  function maySwitchTo(as: string, release: SimRelease): boolean {
    const before = durable.get(as)?.lastGood ?? null;
    // Nothing served before it, or it was compared with nothing when it was installed.
    const first = before === null || before.manifestSha256 === release.manifestSha256;
    const uncompared = release.kind === 'disagrees' && first;
    return (
      everAssigned.has(`${as} ${release.manifestSha256}`) &&
      (release.kind === 'good' || release.kind === 'fails-in-service' || uncompared)
    );
  }

  function requireFiles(why: string, manifestSha256: string): void {
    for (const digest of catalogue.ofManifest(manifestSha256)?.digests ?? []) {
      const bytes = disk.peek(`blobs/${digest}`);
      const intact = bytes !== null && sha256Hex(bytes) === digest;
      require(intact, `${why} ${nameOf(manifestSha256)} ${bytes === null ? 'lost a file' : 'has a corrupt file'}`);
    }
  }

  /** What the durable journal asks the runtime to serve; undefined: the model is in no journal. */
  const asked = (as: string): string | null | undefined => {
    const state = durable.get(as);
    return state === undefined ? undefined : (servingTarget(state)?.manifestSha256 ?? null);
  };

  const witness: RuntimeWitness = {
    loading: (as, manifestSha256) => {
      const state = durable.get(as);
      const staged = state?.phase === 'staging' && state.candidate?.manifestSha256 === manifestSha256;
      require(staged || asked(as) === manifestSha256, `${as} was loaded before its journal said so`);
    },
    probing: (as, manifestSha256) => {
      const state = durable.get(as);
      const due = state?.phase === 'probing' && state.candidate?.manifestSha256 === manifestSha256;
      require(due, `${as} was probed before its journal said so`);
    },
    shadowing: (as, manifestSha256) => {
      const state = durable.get(as);
      const due = state?.phase === 'shadowing' && state.candidate?.manifestSha256 === manifestSha256;
      require(due, `${as} was shadowed before its journal said so`);
      require(state?.active != null, `${as} is shadowed and nothing serves`);
    },
    activating: (as, manifestSha256) => {
      const release = catalogue.ofManifest(manifestSha256);
      require(release !== undefined &&
        maySwitchTo(as, release), `${as} serves ${nameOf(manifestSha256)}, which it must not`);
      require(asked(as) === manifestSha256, `${as} was switched before its journal said so`);
    },
    deactivating: (as) => {
      require((asked(as) ?? null) === null, `${as} was taken down before its journal said so`);
    },
  };

  return {
    witness,
    committed: (machines) => {
      const next = new Map(machines.map((state) => [state.as, state]));
      for (const [as, before] of durable) {
        const after = next.get(as);
        if (after === undefined || before.lastGood === null || after.target === null) continue;
        require(after.lastGood !== null, `${as} forgot its last good release`);
      }
      for (const state of machines) {
        const updating = state.candidate !== null;
        require(!updating ||
          state.journalWrites <= journalWritesMax, `${state.as} went on beyond its journal budget`);
      }
      durable = next;
    },
    assigned: (assignment) => {
      for (const release of assignment.releases) everAssigned.add(`${release.as} ${release.manifestSha256}`);
    },
    afterCut: () => {
      for (const state of durable.values()) {
        if (state.active !== null) requireFiles('after a cut the active', state.active.manifestSha256);
        if (state.lastGood !== null) requireFiles('after a cut the last good', state.lastGood.manifestSha256);
        if (state.candidate !== null && needFiles.has(state.phase)) {
          requireFiles(`after a cut, ${state.phase}, the candidate`, state.candidate.manifestSha256);
        }
      }
    },
    atRest: (runtime) => {
      const blobs = new Set<string>();
      for (const state of durable.values()) {
        const { as, phase, active, reason } = state;
        require(phase === 'committed' || phase === 'idle', `${as} rests in ${phase}`);
        require(state.target !== null, `${as} was removed and is still in the journal`);
        require((runtime.serving.get(as) ?? null) ===
          (active?.manifestSha256 ?? null), `${as} does not serve its active release`);
        require(active?.manifestSha256 ===
          state.lastGood?.manifestSha256, `${as} rests on what was not committed`);
        const kind =
          state.target === null ? undefined : catalogue.ofManifest(state.target.manifestSha256)?.kind;
        const first = kind === 'disagrees' && state.lastGood?.manifestSha256 === state.target?.manifestSha256;
        const expected = kind === undefined || first ? null : outcomes[kind];
        const over = reason?.code === 'journal-budget-exceeded';
        require(over ||
          (reason?.code ?? null) === expected, `${as} ended with ${reason?.code}: ${reason?.detail}`);
        for (const ref of [active, state.lastGood, state.previous]) {
          for (const digest of ref === null ? [] : (catalogue.ofManifest(ref.manifestSha256)?.digests ?? []))
            blobs.add(digest);
        }
      }
      const children = [...durable.values()].flatMap(({ as, active }) =>
        active === null ? [] : [`${as} ${active.manifestSha256}`],
      );
      require([...runtime.children].sort().join() ===
        children.sort().join(), 'children run that nobody needs, or too few');
      for (const as of runtime.serving.keys()) require(durable.has(as), `${as} is served and in no journal`);
      const held = disk.paths().join();
      const wanted = [...blobs]
        .sort()
        .map((digest) => `blobs/${digest}`)
        .join();
      require(held === wanted, `files on the disk at rest: ${held}; wanted: ${wanted}`);
    },
    end: () => {
      const end: End = {};
      for (const { as, phase, active, lastGood, target, reason } of durable.values()) {
        end[as] = {
          phase,
          active: active?.releaseId ?? null,
          lastGood: lastGood?.releaseId ?? null,
          target: target?.releaseId ?? null,
          reason: reason?.code ?? null,
        };
      }
      return end;
    },
  };
}
