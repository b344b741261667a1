// Why: the verdicts of the update machine: does this release fit, did it prove itself, does it hold.
// Trusts: the runtime's measurements and the verified manifest's limits. Must never: pass a release
// whose evidence is missing.

import type { ProbeEvidence, ShadowEvidence, ShadowPolicy } from '../../shared/kernel/ports.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import type { Reason } from '../../shared/wire/messages.ts';

/** What this device is. A fact that is left out is not judged. */
export interface DeviceFacts {
  /** As Node names it: `x64`, `arm64`. */
  arch: string;
  /** Newest ONNX opset that the runtime here accepts. */
  opsetMax?: number;
  memoryMiB?: number;
  /** Version of the agent, `MAJOR.MINOR.PATCH`. */
  agentVersion?: string;
}

export interface Health {
  requests: number;
  errors: number;
  latencyP95Ms: number | null;
}

const bytesPerMiB = 1024 * 1024;
/** Fewer requests than this prove nothing about an error rate. */
const soakRequestsMin = 20;

const incompatible = (detail: string): Reason => ({ code: 'release-incompatible', detail });

/** `requires.agent` is the lowest version that will do, `1.2.0` or `>=1.2.0`. */
function olderThan(version: string, wanted: string): boolean {
  const numbers = (text: string) => /^(?:>=\s*)?(\d+)\.(\d+)\.(\d+)/.exec(text)?.slice(1).map(Number);
  const have = numbers(version);
  const want = numbers(wanted);
  if (have === undefined || want === undefined) return true;
  for (const [index, part] of want.entries()) {
    const own = have[index] ?? 0;
    if (own !== part) return own < part;
  }
  return false;
}

/** Whether the device has what the release needs. Reason: `release-incompatible`. */
export function judgeRequires(requires: Manifest['requires'], device: DeviceFacts): Reason | null {
  if (requires.arch !== undefined && !requires.arch.includes(device.arch)) {
    return incompatible(`needs ${requires.arch.join(' or ')}, this is ${device.arch}`);
  }
  if (requires.opset !== undefined && device.opsetMax !== undefined && requires.opset > device.opsetMax) {
    return incompatible(`needs opset ${requires.opset}, the runtime here knows ${device.opsetMax}`);
  }
  if (
    requires.memoryMiB !== undefined &&
    device.memoryMiB !== undefined &&
    requires.memoryMiB > device.memoryMiB
  ) {
    return incompatible(`needs ${requires.memoryMiB} MiB of memory, there are ${device.memoryMiB}`);
  }
  if (requires.agent !== undefined && device.agentVersion !== undefined) {
    if (olderThan(device.agentVersion, requires.agent)) {
      return incompatible(`needs agent ${requires.agent}, this is ${device.agentVersion}`);
    }
  }
  return null;
}

/**
 * Whether the release proved itself on this device. A limit without a measurement is exceeded: NaN
 * compares false with everything, so each check asks for what is wanted, not for what is feared.
 */
export function judgeProbe(evidence: ProbeEvidence, limits: Manifest['limits']): Reason | null {
  if (evidence.goldenPassed !== evidence.goldenCases) {
    const counts = `${evidence.goldenPassed} of ${evidence.goldenCases} golden cases passed`;
    const first = evidence.firstFailure === null ? '' : `; ${evidence.firstFailure}`;
    return { code: 'probe-golden-failed', detail: `${counts}${first}`.slice(0, 2_000) };
  }
  if (limits.latencyP95Ms !== undefined && !(evidence.latencyP95Ms <= limits.latencyP95Ms)) {
    const detail = `p95 ${evidence.latencyP95Ms.toFixed(1)} ms, the limit is ${limits.latencyP95Ms} ms`;
    return { code: 'probe-latency-exceeded', detail };
  }
  if (limits.memoryMiB !== undefined && !(evidence.memoryBytesPeak <= limits.memoryMiB * bytesPerMiB)) {
    const peakMiB = (evidence.memoryBytesPeak / bytesPerMiB).toFixed(1);
    return {
      code: 'probe-memory-exceeded',
      detail: `peak ${peakMiB} MiB, the limit is ${limits.memoryMiB} MiB`,
    };
  }
  return null;
}

/** Fewer compared inputs than this prove nothing, where so many were asked for. */
const shadowComparedMin = 20;

/** Whether the candidate agrees with the active release on live inputs. Without a bound it is only measured. */
export function judgeShadow(evidence: ShadowEvidence, policy: ShadowPolicy | undefined): Reason | null {
  if (policy === undefined || policy.agreementMin === null) return null;
  const tried = evidence.compared + evidence.failed;
  const needed = Math.min(policy.requests, shadowComparedMin);
  if (tried < needed) {
    const detail = `${tried} live inputs were compared, ${needed} are needed; ${evidence.requests} came`;
    return { code: 'shadow-insufficient', detail };
  }
  if (evidence.agreement !== null && evidence.agreement >= policy.agreementMin) return null;
  const first = evidence.firstFailure === null ? '' : `; ${evidence.firstFailure}`;
  const detail = `agreement ${(evidence.agreement ?? 0).toFixed(3)} on ${tried} live inputs, the limit is ${policy.agreementMin}${first}`;
  return { code: 'shadow-disagreement', detail: detail.slice(0, 2_000) };
}

/** Whether the release holds in service: it answers, and not more than half of its requests fail. */
export function judgeHealth(answer: Result<Health>): Reason | null {
  if (!answer.ok) return { code: 'soak-errors', detail: `${answer.refusal.code}: ${answer.refusal.detail}` };
  const { requests, errors } = answer.value;
  if (requests >= soakRequestsMin && errors * 2 > requests) {
    return { code: 'soak-errors', detail: `${errors} of ${requests} requests failed` };
  }
  return null;
}
