// Why: with which execution providers this device runs models, so that a rollout can be for those that have one.
// Trusts: nothing that a provider's driver does; it is tried in a process of its own.
// Must never: load the runtime into the agent's process, or take one word of a build for what the hardware can.

import type { Clock } from '../../shared/kernel/ports.ts';
import { type ModelProcess, startModelProcess } from './process.ts';

/** A driver's first start may compile its kernels. */
const tryTimeoutMs = 30_000;
/** Needs nothing but the processor: every build runs models on it. */
const always = 'cpu';

export interface ProviderSurvey {
  /** What runs here, the processor first. Where the survey could not be made or was stopped: null. */
  done: Promise<string[] | null>;
  stop(): void;
}

/**
 * Tries each provider that this build of the runtime has, one after the other. One whose driver takes the process with
 * it, or never comes back, does not run here.
 */
export function surveyProviders(
  clock: Clock,
  start: () => ModelProcess = () => startModelProcess(clock),
): ProviderSurvey {
  let stopped = false;
  let child: ModelProcess | null = null;
  const living = (): ModelProcess => {
    child ??= start();
    return child;
  };
  const drop = (): void => {
    child?.kill();
    child = null;
  };

  async function survey(): Promise<string[] | null> {
    const offered = await living().ask({ kind: 'providers' }, [], tryTimeoutMs);
    if (!offered.ok) return null;
    const usable = [always];
    for (const name of offered.value.reply.names) {
      if (stopped) return null;
      if (name === always) continue;
      const tried = await living().ask({ kind: 'provider', name }, [], tryTimeoutMs);
      if (!tried.ok) drop();
      else if (tried.value.reply.usable) usable.push(name);
    }
    return stopped ? null : usable;
  }

  return {
    done: survey()
      .catch((error: unknown) => {
        // Where no process can be started, nothing is told: a survey must not end the work beside which it is made.
        if (error instanceof Error) return null;
        throw error;
      })
      .finally(drop),
    stop: () => {
      stopped = true;
      drop();
    },
  };
}
