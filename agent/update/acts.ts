// Why: what each effect of the update machine does, and which event it ends in.
// Trusts: that the state it acts on is durable. Must never: report a result after its attempt was
// superseded, nor do anything that a repetition after a reboot would spoil.

import { invariant } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy, Log, Runtime, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import {
  type AssignedRelease,
  describeIssues,
  probeEvidenceSchema,
  shadowEvidenceSchema,
} from '../../shared/wire/messages.ts';
import { type Around, type DeviceTime, doorOf, windowOf } from './doors.ts';
import type { Blobs } from './fetch.ts';
import type { DeviceFacts } from './judgement.ts';
import type { Act, Lane } from './lane.ts';
import { assignedOf, type Effect, type MachineEvent, type MachineState, type ReleaseRef } from './machine.ts';
import { blobsOf, fetchRelease, needsFetching, openRelease, readManifest, reasonOf } from './release.ts';
import { backoffMs, faultsRefused, passesByItself } from './waits.ts';

/** How often a soaking release is asked how it does. Short against any soak that proves something. */
const soakCheckMs = 5_000;
/** A sweep that could not be done is tried again after this. */
/** Before a closed door is looked again at least this often: zones and clocks are set by people. */
const doorCheckMsMax = 6 * 3_600_000;
/** And not more often than this, where the clock steps back and forth over the edge. */
const doorCheckMsMin = 1_000;
const collectAgainMs = 10 * 60_000;
/** Pauses after a try that was too slow begin at this step of the backoff, four to eight seconds. */
const slowBackoffFrom = 3;
/**
 * Progress is reported in steps of 5 %, and of so many bytes: each report costs a durable counter, a signature and
 * 1.7 KB of a link that may be thin.
 */
const progressSteps = 20;
const progressBytesMin = 192 * 1024;

type ActEffect = Exclude<Effect, 'settle' | 'forget' | 'collect'>;
export interface Acts {
  of: { readonly [E in ActEffect]: (act: Act) => Promise<void> };
  /** Frees what no model needs. */
  collect(): Promise<void>;
}

export interface ActParts {
  blobs: Blobs;
  runtime: Runtime;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  agree: (assigned: AssignedRelease) => Promise<Result<void>>;
  /** What the device knows of the time now. */
  time: () => DeviceTime;
  /** The same, and what the models that switch together with this one say. */
  around: (state: MachineState) => Around;
  device: DeviceFacts;
  /** The states of all models, as journalled. */
  states: () => MachineState[];
  /** Takes the event when its turn comes, unless the act is stale by then. */
  dispatch: (act: Act, event: MachineEvent) => Promise<void>;
  changed: () => void;
  stopped: () => boolean;
}

export function createActs(parts: ActParts): Acts {
  const { blobs, runtime, clock, entropy, log, dispatch } = parts;
  let again: Timer | null = null;

  /** Repeats `work` while what stands in its way may pass by itself; null once the act is stale. */
  async function tried<T>(
    act: Act,
    work: (progressed: () => void) => Promise<Result<T>>,
  ): Promise<Result<T> | null> {
    let failures = 0;
    /** Tries in a row that some bytes came of, but too slowly: progress is no reason to come back soon. */
    let slow = 0;
    for (;;) {
      const result = await faultsRefused(() =>
        work(() => {
          failures = 0;
          act.lane.problem = null;
        }),
      );
      if (!act.current()) return null;
      if (result.ok || !passesByItself(result.refusal.code)) return result;
      slow = result.refusal.code === 'fetch-too-slow' ? slow + 1 : 0;
      failures = Math.max(failures + 1, slow + slowBackoffFrom * Math.sign(slow));
      act.lane.problem = reasonOf(result.refusal);
      log.emit('warn', 'update.waiting', { model: act.lane.as, ...act.lane.problem });
      parts.changed();
      await act.lane.waits.pause(backoffMs(failures, entropy));
      if (!act.current()) return null;
    }
  }

  async function conclude(act: Act, event: MachineEvent): Promise<void> {
    if (act.current()) await dispatch(act, event);
  }

  const failure = (result: { refusal: Parameters<typeof reasonOf>[0] }): MachineEvent => ({
    type: 'failed',
    reason: reasonOf(result.refusal),
  });

  async function agree(act: Act, then: MachineEvent): Promise<void> {
    const assigned = assignedOf(act.lane.state);
    invariant(assigned !== null, 'an offered model has a target');
    const agreed = await tried(act, () => parts.agree(assigned));
    if (agreed !== null) await conclude(act, agreed.ok ? then : failure(agreed));
  }

  const untilLook = (atMs: number | null): number => {
    const { signedMs, wallMs } = parts.time();
    const ms = atMs === null ? doorCheckMsMax : Math.ceil(atMs - (signedMs ?? wallMs));
    return Math.min(doorCheckMsMax, Math.max(doorCheckMsMin, ms));
  };

  /** Until the door of the hold opens; both authorities are asked again then, for it may have taken days. */
  async function awaitDoor(act: Act): Promise<void> {
    const { lane, current } = act;
    while (current() && lane.state.held !== null) {
      const { reason, changesAtMs } = doorOf(lane.state.held.door, lane.state, parts.around(lane.state));
      if (reason === null) {
        await agree(act, { type: 'opened' });
        if (!current()) return;
      } else if (reason.detail !== lane.problem?.detail) {
        lane.problem = reason;
        log.emit('info', 'update.waiting', { model: lane.as, ...reason });
        parts.changed();
      }
      await lane.waits.pause(untilLook(changesAtMs));
    }
  }

  /** While it downloads: tells when the window closes. What was fetched stays and is gone on with in the next. */
  async function keepToWindow(act: Act): Promise<void> {
    const { lane, current } = act;
    while (current()) {
      const { reason, changesAtMs } = windowOf('download', lane.state.policy, parts.time());
      if (reason === null && changesAtMs === null && lane.state.policy.windows?.download === undefined)
        return;
      if (reason !== null) await conclude(act, { type: 'closed' });
      if (!current()) return;
      await lane.waits.pause(untilLook(changesAtMs));
    }
  }

  async function fetch(act: Act): Promise<void> {
    const { lane, current } = act;
    // Also after a reboot, or where a file has rotted: nothing is asked for outside of the window.
    if (windowOf('download', lane.state.policy, parts.time()).reason !== null)
      await conclude(act, { type: 'closed' });
    if (!current()) return;
    void keepToWindow(act);
    /** What the last report said. */
    let told = 0;
    const fetched = await tried(act, (progressed) =>
      fetchRelease(blobs, candidateOf(lane), {
        wanted: current,
        held: () => heldManifests(lane),
        keep: needed,
        onManifest: (manifest) =>
          conclude(act, { type: 'described', requires: manifest.requires, device: parts.device }),
        onProgress: (doneBytes, totalBytes) => {
          if (!current()) return;
          const part = (done: number) => Math.floor((done / Math.max(1, totalBytes)) * progressSteps);
          const before = lane.progress?.doneBytes ?? -1;
          lane.progress = { doneBytes, totalBytes };
          if (doneBytes > before) progressed();
          const isStep = part(told) !== part(doneBytes) && Math.abs(doneBytes - told) >= progressBytesMin;
          if (before >= 0 && !isStep && (doneBytes < totalBytes || told === doneBytes)) return;
          told = doneBytes;
          parts.changed();
        },
      }),
    );
    if (fetched !== null) await conclude(act, fetched.ok ? { type: 'fetched' } : failure(fetched));
  }

  /** Opens the candidate; what is lost or rotten sends the machine back to fetching. */
  async function opened(act: Act) {
    const release = await tried(act, () => openRelease(blobs, act.lane.as, candidateOf(act.lane)));
    if (release === null || release.ok) return release?.value ?? null;
    await conclude(act, needsFetching(release.refusal) ? { type: 'damaged' } : failure(release));
    return null;
  }

  async function verify(act: Act): Promise<void> {
    const release = await opened(act);
    if (release !== null) await conclude(act, { type: 'verified' });
  }

  async function stage(act: Act): Promise<void> {
    const release = await opened(act);
    if (release === null) return;
    await act.lane.serving.willLoad(release.loadable.manifestSha256);
    if (!act.current()) return;
    const loaded = await faultsRefused(() => runtime.load(release.loadable));
    // The child started although nobody wants it any more: have it ended.
    if (!act.current()) return act.lane.closed ? undefined : act.lane.serving.settle();
    await conclude(act, loaded.ok ? { type: 'staged' } : failure(loaded));
  }

  async function probe(act: Act): Promise<void> {
    const release = await opened(act);
    if (release === null) return;
    const probed = await faultsRefused(() => runtime.probe(release.loadable));
    if (!probed.ok) return conclude(act, failure(probed));
    const { firstFailure } = probed.value;
    const cut = { ...probed.value, firstFailure: firstFailure?.slice(0, 2_000) ?? null };
    // It goes into the journal: what does not fit there must not get in.
    const evidence = probeEvidenceSchema.safeParse(cut);
    if (!evidence.success) {
      return conclude(act, failure(refuse('internal', `probe evidence: ${describeIssues(evidence.error)}`)));
    }
    await conclude(act, { type: 'probed', evidence: evidence.data, limits: release.manifest.limits });
  }

  async function shadow(act: Act): Promise<void> {
    const { lane } = act;
    const policy = lane.state.policy.shadow;
    invariant(policy !== undefined, `${lane.as} is shadowing without a policy`);
    const release = await opened(act);
    if (release === null) return;
    const shadowed = await faultsRefused(() => runtime.shadow(release.loadable, policy));
    if (!shadowed.ok) return conclude(act, failure(shadowed));
    const { firstFailure, differences } = shadowed.value;
    const cut = {
      ...shadowed.value,
      firstFailure: firstFailure?.slice(0, 2_000) ?? null,
      differences: differences.slice(0, 64),
    };
    const evidence = shadowEvidenceSchema.safeParse(cut);
    if (!evidence.success) {
      return conclude(act, failure(refuse('internal', `shadow evidence: ${describeIssues(evidence.error)}`)));
    }
    await conclude(act, { type: 'shadowed', evidence: evidence.data });
  }

  async function watch(act: Act): Promise<void> {
    const { lane, current } = act;
    let stoodStillMs = 0;
    let downSinceMs: number | null = act.sinceMs;
    while (current()) {
      const active = lane.state.active?.manifestSha256 ?? null;
      // After a reboot the release must first be up again, and no soak passes until it is; `served` wakes this loop.
      if (active !== null && lane.serving.now() === active) {
        if (downSinceMs !== null) stoodStillMs += clock.mono() - downSinceMs;
        downSinceMs = null;
        const answer = await faultsRefused(() => runtime.healthy(lane.as));
        await conclude(act, { type: 'health', answer, stoodStillMs });
        if (!current()) return;
      } else downSinceMs ??= clock.mono();
      const left = (lane.state.soakUntilMs ?? 0) + stoodStillMs - clock.mono();
      await lane.waits.pause(left > 0 ? Math.min(soakCheckMs, Math.ceil(left)) : soakCheckMs);
    }
  }

  /** Manifests of what this model has here, the likeliest to resemble its next release first. */
  async function heldManifests({ state }: Lane): Promise<Manifest[]> {
    const manifests: Manifest[] = [];
    for (const ref of [state.active, state.lastGood, state.previous]) {
      if (ref === null) continue;
      const manifest = await readManifest(blobs, ref);
      if (!manifest.ok) continue;
      const files = [];
      for (const file of manifest.value.files) if (await blobs.holds(file)) files.push(file);
      manifests.push({ ...manifest.value, files });
    }
    return manifests;
  }

  /**
   * Digests of all that some model may still need; null where that cannot be told. Where space is short, what only
   * a release that keeps crashing would fall back to is not among them.
   */
  async function needed(sparing = false): Promise<ReadonlySet<string> | null> {
    const keep = new Set<string>();
    for (const { active, candidate, lastGood, previous, phase } of parts.states()) {
      // Before its manifest is here nobody can say which of its files are; later on they all are, and needed.
      const isComing = phase === 'offered' || phase === 'fetching';
      for (const ref of [active, candidate, lastGood, sparing ? null : previous]) {
        if (ref === null) continue;
        keep.add(ref.manifestSha256);
        const manifest = await readManifest(blobs, ref);
        if (parts.stopped()) return null;
        if (manifest.ok) for (const blob of blobsOf(manifest.value)) keep.add(blob.sha256);
        else if ((ref !== candidate || !isComing) && ref !== previous) {
          if (ref !== candidate) unreadable.add(ref);
          return null;
        }
      }
    }
    return keep;
  }

  /** What is to be there after the next start, and was not readable just now. */
  const unreadable = new Set<ReleaseRef>();

  async function collect(): Promise<void> {
    again?.cancel();
    again = null;
    unreadable.clear();
    const swept = await faultsRefused(async () => ok(await blobs.collect(() => needed())));
    if (parts.stopped() || (swept.ok && swept.value)) return;
    // A disk that fails now may not fail soon, and what rotted is had from the registry.
    if (!swept.ok) log.emit('warn', 'update.waiting', { ...swept.refusal });
    const timer = clock.timer(collectAgainMs);
    again = timer;
    void timer.done.then(() => (again === timer && !parts.stopped() ? collect() : undefined));
    for (const ref of unreadable) await mend(ref);
  }

  async function mend(ref: ReleaseRef): Promise<void> {
    const wanted = (): boolean =>
      !parts.stopped() &&
      parts
        .states()
        .some(({ active, lastGood }) =>
          [active, lastGood].some((one) => one?.manifestSha256 === ref.manifestSha256),
        );
    const mended = await faultsRefused(() =>
      fetchRelease(blobs, ref, {
        wanted,
        keep: needed,
        onProgress: () => undefined,
        onManifest: async () => undefined,
      }),
    );
    if (!mended.ok) log.emit('warn', 'update.waiting', { release: ref.releaseId, ...mended.refusal });
  }

  return {
    of: {
      agree: (act) => agree(act, { type: 'agreed' }),
      await: awaitDoor,
      fetch,
      verify,
      stage,
      probe,
      shadow,
      watch,
    },
    collect,
  };
}

function candidateOf(lane: Lane): ReleaseRef {
  const { candidate, as } = lane.state;
  invariant(candidate !== null, `no candidate for ${as} in ${lane.state.phase}`);
  return candidate;
}
