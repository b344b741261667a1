// Why: what windows and "not now" promise on one device, by the true time: nothing begins to download, and nothing new
// is switched on, where the device's own clock on the wall shows another time. Stated apart from the code it judges.
// Trusts: the journal as committed, the world's time. Must never: judge a way back, or what an update had begun in time.

import type { MachineState } from '../../agent/update/machine.ts';
import { isOpen } from '../../shared/kernel/windows.ts';
import { deferMaxMsDefault } from '../../shared/wire/windows.ts';
import type { Incarnation, World } from '../world.ts';

const minuteMs = 60_000;
/** The device's time is the middle between its question and the answer, and drifts a little. */
const earlyMs = 2 * minuteMs;
/** A journal that a full disk refused is tried again, at most half a minute later each time. */
const lateMs = 10 * minuteMs;
/** Beyond its journal a switch may take until its deadline (five minutes). */
const switchMs = 6 * minuteMs;

export interface WindowsOracle {
  /** A state that was committed, after the one before it. */
  changed(before: MachineState | undefined, state: MachineState): void;
  /** The runtime switches this release on. */
  activating(state: MachineState | undefined, manifestSha256: string): void;
}

export function createWindowsOracle(parts: {
  world: World;
  timezone: string;
  require(condition: boolean, message: string): void;
  machine(as: string): MachineState | undefined;
  alive(of: Incarnation): boolean;
  present(): Incarnation | null;
}): WindowsOracle {
  const { world, timezone, require } = parts;

  /** Whether the window was open at some time of the last `pastMs`, or is about to open. */
  function wasOpen(door: 'download' | 'activate', { policy }: MachineState, pastMs: number): boolean {
    const windows = policy.windows?.[door];
    if (windows === undefined) return true;
    const nowMs = world.originMs + world.nowMs();
    for (let atMs = nowMs + earlyMs; atMs >= nowMs - pastMs; atMs -= minuteMs)
      if (isOpen(windows, timezone, atMs)) return true;
    return isOpen(windows, timezone, nowMs - pastMs);
  }

  const downloads = (state: MachineState | undefined): boolean =>
    state?.phase === 'fetching' && state.held === null;

  /** A download under way stops with its window, unless the device is off or another update came. */
  function watch(of: Incarnation, { as, attempt }: MachineState): void {
    world.later(lateMs + 5 * minuteMs, () => {
      const now = parts.machine(as);
      if (!parts.alive(of) || now === undefined || !downloads(now) || now.attempt !== attempt) return;
      require(wasOpen('download', now, lateMs), `${as} downloads long after its window closed`);
      watch(of, now);
    });
  }

  return {
    changed: (before, state) => {
      const { as, policy, deferral } = state;
      const of = parts.present();
      // What has rotted is asked for again, at first without looking; a reboot goes on with what is journalled.
      const begins = downloads(state) && (before?.phase === 'offered' || before?.held?.door === 'download');
      if (begins)
        require(wasOpen('download', state, lateMs), `${as} begins to download outside of its window`);
      if (of !== null && policy.windows !== undefined && downloads(state)) watch(of, state);
      if (state.phase === 'switching' && before?.phase !== 'switching')
        require(wasOpen('activate', state, lateMs), `${as} begins to switch outside of its window`);
      const maxMs = policy.windows?.deferMaxMs ?? deferMaxMsDefault;
      // Terms may come that allow less than was used by then.
      if (deferral !== null && deferral.usedMs > (before?.deferral?.usedMs ?? 0))
        require(deferral.usedMs <= maxMs, `${as} is deferred for ${deferral.usedMs} ms of ${maxMs}`);
      require(state.held === null || state.deadlineAtMs === null, `${as} is held and its deadline runs`);
    },
    activating: (state, manifestSha256) => {
      if (state?.phase !== 'switching' || state.candidate?.manifestSha256 !== manifestSha256) return;
      require(wasOpen('activate', state, lateMs + switchMs), `${state.as} is switched outside of its window`);
    },
  };
}
