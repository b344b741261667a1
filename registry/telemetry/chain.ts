// Why: where a batch stands in its device's chain: the next one, one that is stored already, or an attack.
// Trusts: the head, whose signature was checked, and what this region stored.
// Must never: let two batches share a sequence, or one follow a batch that is not stored here.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type BatchHead, resendBatchesMax } from '../../shared/wire/telemetry.ts';

/** The end of the chain of one device and enrolment. */
export interface ChainEnd {
  sequence: number;
  headSha256: string;
}

/** Both were fixed when the batch was opened; the wrap holds a random key. */
export interface BatchIdentity {
  headSha256: string;
  wrapSha256: string;
}

/**
 * `next`: to be stored. `repeated`: stored before, the answer was lost. `found`: it was acknowledged before a restore and
 * lost in it, and its device, which never got that answer, has it still. Refusals, in order:
 * `telemetry-replayed` (an earlier enrolment's, or too old for an honest repetition), `telemetry-key-unknown`
 * (of an enrolment that this region never made), `telemetry-cloned`, `telemetry-gap`, `telemetry-chain-broken`.
 */
export function placeOf(
  batch: BatchIdentity & { head: BatchHead },
  present: {
    /** The device's enrolment now. */
    epoch: number;
    end: ChainEnd | null;
    /** What is stored under a sequence of this enrolment. */
    storedAt(sequence: number): BatchIdentity | null;
    /** It was acknowledged, then lost in a restore, and did not come again. */
    lostAt(sequence: number): boolean;
  },
): Result<'next' | 'repeated' | 'found'> {
  const { head } = batch;
  const { epoch, end } = present;
  if (head.epoch < epoch) {
    return refuse('telemetry-replayed', `of enrolment ${head.epoch}, which ${epoch} replaced`);
  }
  if (head.epoch > epoch) {
    return refuse('telemetry-key-unknown', `of enrolment ${head.epoch}; the device is in ${epoch}`);
  }
  const last = end?.sequence ?? 0;
  if (head.sequence <= last) {
    // Nobody knows any more which batch it was: whichever its device signed is taken, once.
    if (present.lostAt(head.sequence)) return ok('found');
    const stored = present.storedAt(head.sequence);
    if (stored?.headSha256 !== batch.headSha256 || stored.wrapSha256 !== batch.wrapSha256) {
      return refuse('telemetry-cloned', `another batch ${head.sequence} is stored`);
    }
    if (head.sequence <= last - resendBatchesMax) {
      return refuse('telemetry-replayed', `batch ${head.sequence} again, after ${last}`);
    }
    return ok('repeated');
  }
  if (head.sequence > last + 1) {
    return refuse('telemetry-gap', `batch ${head.sequence} after ${last}`);
  }
  if (head.previousHeadSha256 !== (end?.headSha256 ?? null)) {
    return refuse('telemetry-chain-broken', `batch ${head.sequence} follows another batch than ${last}`);
  }
  return ok('next');
}
