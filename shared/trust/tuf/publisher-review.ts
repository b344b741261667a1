// Why: whoever adds a second signature is shown in words what the waiting file does, all of it, before signing.
// Trusts: the verified current file that the step was checked against. Must never: leave a change unsaid.

import { sha256Hex } from '../../crypto/digests.ts';
import { unwrap } from '../../kernel/errors.ts';
import { formatReleaseId } from '../../kernel/releases.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import {
  type PublisherStep,
  type PublisherTargets,
  type RaisedFloor,
  readPublisherTargets,
} from './publisher.ts';
import { makeTargets } from './repository.ts';

export interface ReviewedStep {
  /** Names this content, whoever signed it: to be told from one publisher to the other. */
  stepId: string;
  /** Every change, a line each; never empty. */
  does: string[];
}

/** Versions that a floor bars and that are named one by one; the rest is counted. */
const namedMax = 5;

/** Half a SHA-256 of what is signed: nobody finds two steps of one name. */
export function stepIdOf(file: PublisherTargets): string {
  return sha256Hex(file.signedBytes).slice(0, 32);
}

/** Every change of a checked step, a line each. */
export function stepInWords(namespace: string, step: PublisherStep): string[] {
  const added = step.added.map(
    ({ release, entry }) =>
      `adds ${formatReleaseId(release)} (counter ${entry.counter}, manifest ${entry.sha256})`,
  );
  const raised = step.raised.map((one) => raisedInWords(namespace, step.next, one));
  const withdrawn = step.withdrawn.map(
    ({ release, counter }) => `withdraws ${formatReleaseId(release)} (counter ${counter})`,
  );
  const all = [...added, ...raised, ...withdrawn];
  return all.length > 0 ? all : [`renews ${namespace}: nothing else changes`];
}

function raisedInWords(namespace: string, next: PublisherTargets, raised: RaisedFloor): string {
  const prefix = `${namespace}/${raised.model}/`;
  const barred = [...next.targets]
    .filter(([path, { counter }]) => path.startsWith(prefix) && (counter ?? 0) < raised.to)
    .sort(([, a], [, b]) => (a.counter ?? 0) - (b.counter ?? 0))
    .map(([path]) => path.slice(prefix.length));
  const named = barred.slice(-namedMax).join(', ');
  const others = barred.length > namedMax ? ` and ${barred.length - namedMax} older` : '';
  const what =
    barred.length === 0 ? 'no release is below it' : `${named}${others} may not be assigned any more`;
  return `raises the floor of ${namespace}/${raised.model} from ${raised.from} to ${raised.to}: ${what}`;
}

/**
 * What a waiting step says, for whoever is to sign it. Refusal: `metadata-malformed` where the file holds
 * anything that these words do not cover.
 */
export function reviewStep(namespace: string, step: PublisherStep): Result<ReviewedStep> {
  const { next } = step;
  // Made again from what was understood: a field that was not would be signed unseen.
  const understood = makeTargets({
    version: next.version,
    expiresAtMs: next.expiresAtMs,
    targets: next.targets,
    floors: next.floors,
    withdrawn: next.withdrawn,
    signers: [],
  });
  const { signedBytes } = unwrap(readPublisherTargets(understood));
  if (Buffer.compare(signedBytes, next.signedBytes) !== 0)
    return refuse('metadata-malformed', `${namespace}: the file says more than this program understands`);
  return ok({ stepId: stepIdOf(next), does: stepInWords(namespace, step) });
}
