// Why: a device without models: everything of the agent is real but the inference children, so that one
// process can hold a fleet. Trusts: its caller for how a release behaves.
// Must never: be used where the answers of a model matter; it gives none.

import { createCounters } from '../../agent/inference/counters.ts';
import type { InferenceHost, ServedModel } from '../../agent/inference/host.ts';
import type { Clock, ProbeEvidence, ShadowEvidence } from '../../shared/kernel/ports.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';

export interface LightHostOptions {
  clock: Clock;
  /** How long a load and a probe take, milliseconds. */
  loadMs: number;
  /** What the probe of a release finds, and when; the default is a release that keeps its promises, at once. */
  probe?: (releaseId: string) => ProbeEvidence | Promise<ProbeEvidence>;
}

export const goodEvidence: ProbeEvidence = {
  goldenCases: 1,
  goldenPassed: 1,
  firstFailure: null,
  latencyP50Ms: 1,
  latencyP95Ms: 2,
  memoryBytesPeak: 50 * 1024 * 1024,
};

/** Every one of so many live inputs was answered alike. */
export function agreeing(requests: number): ShadowEvidence {
  return {
    requests,
    compared: requests,
    skipped: 0,
    failed: 0,
    agreement: 1,
    firstFailure: null,
    latencyP95Ms: 2,
    activeLatencyP95Ms: 2,
    differences: [],
  };
}

const idle = {
  ready: true,
  reason: null,
  pid: null,
  recipe: { state: [], context: [], stream: undefined, constants: [] },
  counters: createCounters(),
  waiting: 0,
  restarts: { crashed: 0, recycled: 0, stuck: 0, overMemory: 0 },
  memory: { rssBytes: null, limitBytes: null },
  provider: 'none',
};

/** A stand-in for the inference host: it loads, proves and switches, and answers no request. */
export function createLightHost(options: LightHostOptions): InferenceHost {
  const { clock, loadMs, probe = () => goodEvidence } = options;
  const loaded = new Map<string, { as: string; releaseId: string }>();
  const serving = new Map<string, string>();
  const describe = (as: string): ServedModel | null => {
    const release = loaded.get(serving.get(as) ?? '');
    if (release === undefined) return null;
    const { releaseId } = release;
    const version = releaseId.slice(releaseId.indexOf('@') + 1);
    return { as, releaseId, version, ...idle, inputs: [], outputs: [] };
  };
  return {
    ahead: () => null,
    async load(release) {
      await clock.timer(loadMs).done;
      loaded.set(release.manifestSha256, release);
      return ok();
    },
    async probe(release) {
      await clock.timer(loadMs).done;
      return ok(await probe(release.releaseId));
    },
    async shadow(_release, policy) {
      await clock.timer(loadMs).done;
      return ok(agreeing(policy.requests));
    },
    async activate(as, manifestSha256) {
      if (!loaded.has(manifestSha256)) return refuse('model-load-failed', `${as}: not loaded`);
      serving.set(as, manifestSha256);
      return ok();
    },
    async deactivate(as) {
      serving.delete(as);
    },
    async unload(as, manifestSha256) {
      if (serving.get(as) !== manifestSha256) loaded.delete(manifestSha256);
    },
    async healthy(as) {
      return serving.has(as)
        ? ok({ requests: 0, errors: 0, latencyP95Ms: null })
        : refuse('infer-not-ready', `${as} does not serve`);
    },
    async infer() {
      return refuse('infer-unsupported', 'a light device runs no models');
    },
    models: () => [...serving.keys()].flatMap((as) => describe(as) ?? []),
    model: (as) => describe(as),
    requests: () => ({ answered: 0, failed: 0 }),
    useSampling: () => undefined,
    takeWindow: () => [],
    async close() {
      loaded.clear();
      serving.clear();
    },
  };
}
