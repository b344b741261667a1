// Why: whether an update may begin to download or to switch now: the windows of its assignment in this device's zone,
// and "not now" said at the device. Trusts: its arguments only; it is pure, like the machine that asks it.
// Must never: hold a way back, or let a window count by a clock that nobody vouched for.

import { localText, windowsAt, windowsText } from '../../shared/kernel/windows.ts';
import type { ActivationPolicy, Reason } from '../../shared/wire/messages.ts';
import { deferMaxMsDefault } from '../../shared/wire/windows.ts';

/** What the device knows of the time. */
export interface DeviceTime {
  /** The region's signed time of this start, moved on; null until it was told. Unix milliseconds. */
  signedMs: number | null;
  /** The device's own clock, whatever it says. */
  wallMs: number;
  /** IANA name. */
  timezone: string;
}

/** What else a model's own state does not tell. */
export interface Around extends DeviceTime {
  /** Why the models that switch together with it hold it back; null where none does. */
  together?: Reason | null;
}

/** Of who was told nothing: every window is closed. */
export const noTime: DeviceTime = { signedMs: null, wallMs: 0, timezone: 'UTC' };

export type Door = 'download' | 'activate';

/** An update that stands before a closed door. */
export interface Hold {
  door: Door;
  /** What was left of the state's deadline, which does not run meanwhile. */
  leftMs: number | null;
}

/** Somebody at the device said "not now", for one update. Unix milliseconds of `deferTimeMs`. */
export interface Deferral {
  fromMs: number;
  untilMs: number;
  /** Of this update in all, with this one. */
  usedMs: number;
}

/** `reason`: why it is closed, null where it is open. `changesAtMs`: when to look again, null where that is not known. */
export interface DoorState {
  reason: Reason | null;
  changesAtMs: number | null;
}

const always: DoorState = { reason: null, changesAtMs: null };

/** A deferral is local, so any clock will do; it must only be the same one. */
export function deferTimeMs({ signedMs, wallMs }: DeviceTime): number {
  return Math.floor(signedMs ?? wallMs);
}

/** The window alone. Without the region's time it is closed: a clock that starts in 1970 would open any. */
export function windowOf(door: Door, policy: ActivationPolicy, time: DeviceTime): DoorState {
  const windows = policy.windows?.[door];
  if (windows === undefined) return always;
  const name = door === 'download' ? 'download window' : 'activation window';
  const words = `${name} ${windowsText(windows)} (${time.timezone})`;
  if (time.signedMs === null) {
    const detail = `${words}: what time it is was not told by the region since this start`;
    return { reason: { code: 'window-closed', detail }, changesAtMs: null };
  }
  const { open, changesAtMs } = windowsAt(windows, time.timezone, time.signedMs);
  if (open) return { reason: null, changesAtMs };
  const when =
    changesAtMs === null
      ? 'does not open within 8 days'
      : `opens ${localText(time.timezone, changesAtMs)}, ${new Date(changesAtMs).toISOString()}`;
  return {
    reason: {
      code: 'window-closed',
      detail: `${words} ${when}`,
      ...(changesAtMs === null ? {} : { untilMs: changesAtMs }),
    },
    changesAtMs,
  };
}

/** Window, deferral and those that switch together with it. */
export function doorOf(
  door: Door,
  of: { policy: ActivationPolicy; deferral: Deferral | null },
  around: Around,
): DoorState {
  const nowMs = deferTimeMs(around);
  if (of.deferral !== null && nowMs < of.deferral.untilMs) {
    const { untilMs } = of.deferral;
    const detail = `deferred at the device until ${new Date(untilMs).toISOString()}`;
    return { reason: { code: 'update-deferred', detail, untilMs }, changesAtMs: untilMs };
  }
  const state = windowOf(door, of.policy, around);
  if (state.reason !== null || door === 'download' || (around.together ?? null) === null) return state;
  // Whoever it waits for says when it goes on.
  return { reason: around.together ?? null, changesAtMs: null };
}

/**
 * "Not now" for so long, as far as the rollout allows it for this update. What is left of an earlier deferral is
 * replaced and given back. Null where nothing is left.
 */
export function granted(
  policy: ActivationPolicy,
  before: Deferral | null,
  forMs: number,
  nowMs: number,
): Deferral | null {
  const maxMs = policy.windows?.deferMaxMs ?? deferMaxMsDefault;
  const usedMs = usedBy(before, nowMs);
  const ms = Math.min(forMs, maxMs - usedMs);
  return ms <= 0 ? null : { fromMs: nowMs, untilMs: nowMs + ms, usedMs: usedMs + ms };
}

/** What has been deferred of an update until now. */
function usedBy(deferral: Deferral | null, nowMs: number): number {
  if (deferral === null) return 0;
  return deferral.usedMs - Math.max(0, deferral.untilMs - Math.max(nowMs, deferral.fromMs));
}

/** Ended at once; what was used stays used. */
export function cleared(deferral: Deferral, nowMs: number): Deferral {
  const atMs = Math.min(nowMs, deferral.untilMs);
  return { fromMs: atMs, untilMs: atMs, usedMs: usedBy(deferral, nowMs) };
}

/** As long again from now on where the clock went back behind its beginning: it must end. Null: nothing to change. */
export function rebased<D extends { fromMs: number; untilMs: number }>(deferral: D, nowMs: number): D | null {
  const { fromMs, untilMs } = deferral;
  return nowMs >= fromMs ? null : { ...deferral, fromMs: nowMs, untilMs: nowMs + untilMs - fromMs };
}
