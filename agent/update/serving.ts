// Why: makes the runtime serve what the machine's journal says, again and again until it does; the one
// caller of activate and deactivate. Trusts: `state()` to be durable already.
// Must never: activate a release that is not the machine's serving target at that moment.

import type { Entropy, Runtime } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Reason } from '../../shared/wire/messages.ts';
import type { Blobs } from './fetch.ts';
import { type MachineEvent, type MachineState, type ReleaseRef, servingTarget } from './machine.ts';
import { fetchRelease, needsFetching, openRelease, reasonOf } from './release.ts';
import { backoffMs, faultsRefused, type Waits } from './waits.ts';

export interface Serving {
  /** Starts or hurries the loop; it reports `served` when the runtime does what the journal says. */
  settle(): void;
  /** Resolves when the first try after start ended or would need the network. */
  firstTry: Promise<void>;
  /** Digest of the manifest that serves, null: nothing, undefined: not known yet. */
  now(): string | null | undefined;
  /**
   * Call before `runtime.load`: the child is then ended when no longer needed. Resolves when an end of an
   * earlier child of this release, if one is under way, is over.
   */
  willLoad(manifestSha256: string): Promise<void>;
  /** Why the target does not serve at the moment. */
  problem(): Reason | null;
}

export interface ServingParts {
  as: string;
  state: () => MachineState;
  stopped: () => boolean;
  dispatch: (event: MachineEvent) => void;
  blobs: Blobs;
  runtime: Runtime;
  entropy: Entropy;
  waits: Waits;
  changed: () => void;
  /** What should serve dies again and again while it loads. */
  onCrashLoop: (manifestSha256: string, reason: Reason) => void;
}

export function createServing(parts: ServingParts): Serving {
  const { as, state, stopped, dispatch, blobs, runtime, entropy, waits } = parts;
  const loaded = new Set<string>();
  const unloading = new Map<string, Promise<void>>();
  let serving: string | null | undefined;
  let problem: Reason | null = null;
  let running = false;
  let firstTried: () => void = () => undefined;
  const firstTry = new Promise<void>((resolve) => {
    firstTried = resolve;
  });
  const wanted = () => servingTarget(state())?.manifestSha256 ?? null;

  async function willLoad(manifestSha256: string): Promise<void> {
    loaded.add(manifestSha256);
    await unloading.get(manifestSha256);
  }

  async function bringUp(target: ReleaseRef): Promise<Result<void>> {
    const current = () => !stopped() && wanted() === target.manifestSha256;
    let opened = await openRelease(blobs, as, target);
    if (!opened.ok && needsFetching(opened.refusal)) {
      // Rotten or lost: mended from the registry. The start of the agent does not wait for that.
      firstTried();
      const fetched = await fetchRelease(blobs, target, {
        wanted: current,
        onProgress: () => undefined,
        onManifest: async () => undefined,
      });
      if (!fetched.ok) return fetched;
      opened = await openRelease(blobs, as, target);
    }
    if (!opened.ok) return opened;
    if (!current()) return refuse('update-superseded', 'something else is to serve');
    await willLoad(target.manifestSha256);
    if (!current()) return refuse('update-superseded', 'something else is to serve');
    const load = await runtime.load({ ...opened.value.loadable, proven: true });
    if (!load.ok) return load;
    // No await between this look at the journal and the call.
    if (!current()) return refuse('update-superseded', 'something else is to serve');
    const activated = await runtime.activate(as, target.manifestSha256);
    if (activated.ok) serving = target.manifestSha256;
    return activated;
  }

  async function bringDown(): Promise<Result<void>> {
    await runtime.deactivate(as);
    serving = null;
    return ok();
  }

  /** Ends the children that nobody needs. The last good one stays warm while its successor soaks. */
  async function tidy(): Promise<void> {
    for (const manifestSha256 of [...loaded]) {
      const { phase, active, candidate, lastGood, held } = state();
      // A candidate that waits for its window is brought up again then.
      const keep = [active, held === null ? candidate : null, phase === 'soaking' ? lastGood : null];
      if (keep.some((ref) => ref?.manifestSha256 === manifestSha256)) continue;
      loaded.delete(manifestSha256);
      const ended = runtime.unload(as, manifestSha256);
      unloading.set(manifestSha256, ended);
      await ended;
      unloading.delete(manifestSha256);
    }
  }

  async function loop(): Promise<void> {
    let failures = 0;
    while (!stopped()) {
      const target = servingTarget(state());
      const digest = target?.manifestSha256 ?? null;
      if (serving !== digest) {
        const outcome = await faultsRefused(() => (target === null ? bringDown() : bringUp(target)));
        if (stopped()) return;
        firstTried();
        if (wanted() !== digest) {
          failures = 0;
          continue;
        }
        if (!outcome.ok) {
          problem = reasonOf(outcome.refusal);
          failures += 1;
          parts.changed();
          if (digest !== null) dispatch({ type: 'serve-failed', manifestSha256: digest, reason: problem });
          if (digest !== null && problem.code === 'model-crash-loop') parts.onCrashLoop(digest, problem);
          await waits.pause(backoffMs(failures, entropy));
          continue;
        }
      }
      if (problem !== null) {
        problem = null;
        parts.changed();
      }
      firstTried();
      await tidy();
      if (stopped()) return;
      if (wanted() === serving) {
        // No await between the look and the end of the loop, so that no `settle` is lost.
        running = false;
        waits.wake();
        dispatch({ type: 'served', manifestSha256: wanted() });
        return;
      }
    }
  }

  return {
    firstTry,
    now: () => serving,
    willLoad,
    problem: () => problem,
    settle: () => {
      if (running) {
        waits.wake();
        return;
      }
      running = true;
      void loop().finally(firstTried);
    },
  };
}
