// Why: the gates that decide whether a wave may go on, from the devices' own evidence.
// Trusts: outcomes made from signed reports. Must never: let a wave pass that nobody has tried.
//
// `probe` always is. A file that gives `success` says how many failing devices it bears; that holds for
// the probe too, otherwise one bad flash chip among a thousand devices would take the release from all.

import type { RolloutSpec } from '../../shared/wire/rollout-file.ts';
import { evidenceGates, judgeEvidence, type WaveEvidence } from './evidence-gates.ts';
import type { BesideEvidence, GateView } from './facts.ts';
import { type Outcome, probeVerdict } from './members.ts';

export interface WaveJudgement {
  gates: GateView[];
  /** `pass` only when every device is settled; `fail` as soon as a gate cannot be met any more. */
  verdict: 'pass' | 'fail' | 'waiting';
  /** Which gate failed and on what evidence. */
  reason: string | null;
}

/** The gates of a wave that has not begun. */
export function pendingGates(spec: RolloutSpec, wave: number): GateView[] {
  const { gates: asked } = spec;
  const { success, agreement } = asked;
  const gates = [
    { gate: 'probe' as const, limit: success ?? 1 },
    ...(agreement === undefined ? [] : [{ gate: 'agreement' as const, limit: agreement }]),
    ...(success === undefined ? [] : [{ gate: 'success' as const, limit: success }]),
    ...evidenceGates.flatMap((gate) => {
      const limit = asked[gate];
      return limit === undefined ? [] : [{ gate, limit }];
    }),
  ];
  return gates.map(({ gate, limit }) => ({ wave, gate, limit, value: null, devices: 0, verdict: 'waiting' }));
}

const noEvidence: WaveEvidence = {
  ...{ devices: 0, requests: 0, errors: 0, latency: null, active: null, memoryBytes: [], memoryRatios: [] },
  drift: { devices: 0, rows: 0, features: [] },
};

/** Fractions of whole devices: 0.9 of ten devices is nine of them, whatever the rounding. */
const tolerance = 1e-9;

interface Tally {
  counted: number;
  committed: number;
  failed: number;
  open: number;
  probePassed: number;
  probeFailed: number;
  disagreed: number;
  firstFailure: Outcome | null;
  firstProbeFailure: Outcome | null;
  firstDisagreement: Outcome | null;
}

function tallyOf(outcomes: readonly Outcome[]): Tally {
  const tally: Tally = {
    counted: 0,
    committed: 0,
    failed: 0,
    open: 0,
    probePassed: 0,
    probeFailed: 0,
    disagreed: 0,
    firstFailure: null,
    firstProbeFailure: null,
    firstDisagreement: null,
  };
  for (const outcome of outcomes) {
    if (outcome.kind === 'left' || outcome.kind === 'ignored') continue;
    tally.counted += 1;
    const probe = probeVerdict(outcome);
    if (probe === 'pass') tally.probePassed += 1;
    if (probe === 'fail') {
      tally.probeFailed += 1;
      tally.firstProbeFailure ??= outcome;
    }
    if (outcome.kind === 'failed' && outcome.reason?.code.startsWith('shadow-') === true) {
      tally.disagreed += 1;
      tally.firstDisagreement ??= outcome;
    }
    if (outcome.kind === 'committed') tally.committed += 1;
    else if (outcome.kind === 'failed') {
      tally.failed += 1;
      tally.firstFailure ??= outcome;
    } else tally.open += 1;
  }
  return tally;
}

const because = (outcome: Outcome | null): string =>
  outcome?.reason ? ` (${outcome.reason.code}: ${outcome.reason.detail})` : '';

/** Judges one wave by the outcomes of its devices and by what they measured; null: nothing yet. */
export function judgeWave(
  spec: RolloutSpec,
  index: number,
  outcomes: readonly Outcome[],
  evidence: WaveEvidence | null,
  beside: readonly BesideEvidence[] = [],
): WaveJudgement {
  const tally = tallyOf(outcomes);
  const judged = [
    probeGate(spec, index, tally),
    ...agreementGate(spec, index, tally),
    ...successGate(spec, index, tally),
    ...worst([
      judgeEvidence(spec, index, evidence ?? noEvidence, tally.counted),
      ...beside.map((one) =>
        judgeEvidence(one.spec, index, one.evidence, tally.counted).map(({ gate, reason }) => ({
          gate,
          reason: reason === '' ? '' : `${one.as}: ${reason}`,
        })),
      ),
    ]),
  ];
  const gates = judged.map(({ gate }) => gate);
  const failed = judged.find(({ gate }) => gate.verdict === 'fail');
  if (failed !== undefined) return { gates, verdict: 'fail', reason: failed.reason };
  if (tally.open > 0) return { gates, verdict: 'waiting', reason: null };
  // The first wave is the proof for all others; a later one whose devices are all away or gone may pass.
  if (tally.counted === 0 && index === 0 && outcomes.some((outcome) => outcome.kind === 'ignored')) {
    return {
      gates,
      verdict: 'fail',
      reason: `gate probe of wave ${index}: none of its devices could be reached`,
    };
  }
  const open = judged.find(({ gate }) => gate.verdict === 'waiting');
  if (open !== undefined) return { gates, verdict: 'waiting', reason: open.reason };
  return { gates, verdict: 'pass', reason: null };
}

const severity = { pass: 0, waiting: 1, fail: 2 } as const;

/** Of several releases the one that stands worst speaks for a gate. */
function worst([first = [], ...others]: readonly JudgedGate[][]): JudgedGate[] {
  return first.map((own) =>
    others.reduce((one, list) => {
      const other = list.find(({ gate }) => gate.gate === one.gate.gate);
      return other !== undefined && severity[other.gate.verdict] > severity[one.gate.verdict] ? other : one;
    }, own),
  );
}

interface JudgedGate {
  gate: GateView;
  reason: string;
}

/** Fraction of the probed devices on which the release gave its golden answers within its limits. */
function probeGate(spec: RolloutSpec, wave: number, tally: Tally): JudgedGate {
  const limit = spec.gates.success ?? 1;
  const devices = tally.probePassed + tally.probeFailed;
  const value = devices === 0 ? null : tally.probePassed / devices;
  const best = tally.counted === 0 ? 1 : (tally.counted - tally.probeFailed) / tally.counted;
  const needed = Math.min(spec.gates.minDevices ?? 1, tally.counted);
  const reached = tally.probePassed + tally.probeFailed + tally.open;
  const where = `gate probe of wave ${wave}`;
  const gate = { wave, gate: 'probe' as const, limit, value, devices };
  if (best < limit - tolerance) {
    const reason = `${where}: ${tally.probeFailed} of ${devices} devices failed their probe${because(tally.firstProbeFailure)}`;
    return { gate: { ...gate, verdict: 'fail' }, reason };
  }
  if (reached < needed) {
    const reason = `${where}: only ${devices} of ${needed} devices needed got as far as the probe${because(tally.firstFailure)}`;
    return { gate: { ...gate, verdict: 'fail' }, reason };
  }
  const enough = tally.open === 0 && (value ?? 1) >= limit - tolerance;
  // Too few good probes among those that were reached, though those that never got there might have been good.
  if (tally.open === 0 && !enough) {
    const reason = `${where}: ${tally.probeFailed} of ${devices} devices failed their probe${because(tally.firstProbeFailure)}`;
    return { gate: { ...gate, verdict: 'fail' }, reason };
  }
  return { gate: { ...gate, verdict: enough ? 'pass' : 'waiting' }, reason: '' };
}

/**
 * Whether the devices found the release in agreement with the one before it, each by its own measurement against
 * the file's limit. As many may fail it as `success` bears.
 */
function agreementGate(spec: RolloutSpec, wave: number, tally: Tally): JudgedGate[] {
  const limit = spec.gates.agreement;
  if (limit === undefined) return [];
  const best = tally.counted === 0 ? 1 : (tally.counted - tally.disagreed) / tally.counted;
  const gate = {
    wave,
    gate: 'agreement' as const,
    limit,
    value: null,
    devices: tally.committed + tally.disagreed,
  };
  if (best < (spec.gates.success ?? 1) - tolerance) {
    const reason = `gate agreement of wave ${wave}: ${tally.disagreed} of ${tally.counted} devices${because(tally.firstDisagreement)}`;
    return [{ gate: { ...gate, verdict: 'fail' }, reason }];
  }
  return [{ gate: { ...gate, verdict: tally.open === 0 ? 'pass' : 'waiting' }, reason: '' }];
}

/** Fraction of the counted devices that committed the release; only where the file asks for it. */
function successGate(spec: RolloutSpec, wave: number, tally: Tally): JudgedGate[] {
  const limit = spec.gates.success;
  if (limit === undefined) return [];
  const value = tally.counted === 0 ? null : tally.committed / tally.counted;
  const best = tally.counted === 0 ? 1 : (tally.counted - tally.failed) / tally.counted;
  const gate = { wave, gate: 'success' as const, limit, value, devices: tally.committed + tally.failed };
  if (best < limit - tolerance) {
    const reason = `gate success of wave ${wave}: ${tally.failed} of ${tally.counted} devices failed${because(tally.firstFailure)}`;
    return [{ gate: { ...gate, verdict: 'fail' }, reason }];
  }
  return [{ gate: { ...gate, verdict: tally.open === 0 ? 'pass' : 'waiting' }, reason: '' }];
}
