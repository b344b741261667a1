// Why: when a feature's drift becomes an alarm, and when the alarm is over: windows of counts are judged one after the
// other, and only what two in a row say counts, so that one odd hour is no alarm.
// Trusts: its callers for counts and time. Must never: judge counts twice.

import type { Profile, ProfileFeature } from '../wire/profile.ts';
import { verdictTerms } from './drift.ts';
import { type FeatureDrift, featureDrift } from './feature-drift.ts';
import { addFeatures, type FeaturesSum, featureKey, noFeatures } from './rollup.ts';

export const watchTerms = {
  /** A window is full with so many rows; what comes fast fills one in a second, which is then a minute long. */
  windowRowsMin: verdictTerms.countMin,
  judgeEveryMs: 60_000,
  windowsInARow: 2,
  /** Older records come from a device that was offline: they are counted, and no alarm of now. */
  recordAgeMsMax: 24 * 3_600_000,
} as const;

export interface FeatureState {
  alarm: boolean;
  /** Windows in a row that said the opposite. */
  streak: number;
}

/** By feature; one without an entry is in no alarm. */
export type WatchStates = Readonly<Record<string, FeatureState>>;

export interface Watch {
  /** The window that is being filled. */
  window: Pick<FeaturesSum, 'rows' | 'seenRows' | 'features'>;
  states: WatchStates;
  judgedAtMs: number;
}

export interface DriftChange {
  to: 'drift' | 'ok';
  feature: FeatureDrift;
}

export const newWatch: Watch = { window: noFeatures, states: {}, judgedAtMs: 0 };

export function addToWatch(watch: Watch, counted: FeaturesSum): Watch {
  return { ...watch, window: addFeatures({ ...noFeatures, ...watch.window }, counted) };
}

/** A clock that was set back must not keep a watch from judging until it has caught up. */
export function isDue({ window, judgedAtMs }: Watch, nowMs: number): boolean {
  if (window.rows < watchTerms.windowRowsMin) return false;
  return judgedAtMs > nowMs || nowMs - judgedAtMs >= watchTerms.judgeEveryMs;
}

function nextState(state: FeatureState, drifts: boolean): FeatureState {
  if (drifts === state.alarm) return { alarm: state.alarm, streak: 0 };
  const streak = state.streak + 1;
  return streak >= watchTerms.windowsInARow ? { alarm: drifts, streak: 0 } : { ...state, streak };
}

/** Judges the window and begins the next one. */
export function judgeWatch(
  watch: Watch,
  profile: Pick<Profile, 'features'>,
  nowMs: number,
): { watch: Watch; changes: DriftChange[]; judged: FeatureDrift[] } {
  const states: Record<string, FeatureState> = {};
  const changes: DriftChange[] = [];
  const judged = profile.features.map((feature: ProfileFeature) => {
    const key = featureKey(feature);
    const found = featureDrift(feature, watch.window.features.get(key));
    const before = watch.states[key] ?? { alarm: false, streak: 0 };
    // Of too few counts nothing is known: neither an alarm nor its end.
    const after = found.verdict === 'too-few' ? before : nextState(before, found.verdict === 'drift');
    if (after.alarm || after.streak > 0) states[key] = after;
    if (after.alarm !== before.alarm) changes.push({ to: after.alarm ? 'drift' : 'ok', feature: found });
    return found;
  });
  return { watch: { window: noFeatures, states, judgedAtMs: nowMs }, changes, judged };
}
