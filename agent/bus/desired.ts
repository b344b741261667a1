// Why: turns what the registry says (`desired`, the timestamp doorbell) and a slow poll into assignments
// for the update machine. Trusts: nothing on the bus; the authority decides.
// Must never: drop a refusal silently, nor stop following after one.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import {
  type Assignment,
  desiredMessageSchema,
  type Envelope,
  encodeMessage,
  parseMessage,
} from '../../shared/wire/messages.ts';
import type { Authority } from '../trust/authority.ts';
import { createBackoff, jitterMs } from './backoff.ts';
import { createDoorbell } from './doorbell.ts';
import type { Refusals } from './refusals.ts';

export interface DesiredParts {
  authority: Authority;
  refusals: Refusals;
  /** Hands an accepted assignment to the update machine; resolves when it is journalled. */
  assign(assignment: Assignment): Promise<void>;
  online(): boolean;
  /** Asks the broker for the retained `desired` once more. */
  askAgain(): Promise<void>;
  /** The report's epoch changed. */
  onAccepted(): void;
  /** An order to another region came with it. Must not block; nothing of it is checked. */
  onMove?(envelope: Envelope): void;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  pollMs?: number;
}

export interface Desired {
  /** Handler of `d/<device>/desired`. */
  receive(payload: Uint8Array): void;
  /** Handler of `tuf/timestamp`. */
  doorbell(payload: Uint8Array): void;
  /** The clock was set by signed time: what was refused for its dates is judged again. */
  clockVerified(): void;
  /** The bus is back: the catalogue is refreshed; retained messages come by themselves. */
  connected(): void;
  stop(): Promise<void>;
}

/** Messages waiting to be judged. A flood loses its oldest, never the newest. */
const waitingMax = 16;
/** A doorbell rings for the whole fleet at once; devices come spread over this. */
const doorbellSpreadMs = 2_000;

/** Nothing was learnt: no refusal of anything, only asked again. */
const passing: ReadonlySet<ErrorCode> = new Set([
  'bus-offline',
  'fetch-busy',
  'fetch-timeout',
  'interrupted',
]);

/** A newer catalogue, another region root (with a director's key not heard of yet) or a better clock may cure it. */
function mayPass(code: ErrorCode): boolean {
  const isCurable = code === 'assignment-expired' || code === 'assignment-signature-invalid';
  return isCurable || code.startsWith('metadata-') || code.startsWith('target-');
}

export function followDesired(parts: DesiredParts): Desired {
  const { authority, refusals, clock, entropy, log } = parts;
  const pollMs = parts.pollMs ?? limits.metadataPollMs;
  const bell = createDoorbell(clock);
  const backoff = createBackoff(entropy);
  const waiting: Uint8Array[] = [];
  /** The newest message that was refused for a reason that a newer catalogue or another try may cure. */
  let heldBack: Uint8Array | null = null;
  /** Epoch that the update machine has; it may lag behind the authority's after a fault. */
  let handedOver: number | null = null;
  /** The last refresh was refused for a date. */
  let refusedByDate = false;
  /** Monotonic times. */
  let refreshAtMs = Number.POSITIVE_INFINITY;
  let retryAtMs = Number.POSITIVE_INFINITY;
  let pollAtMs = clock.mono() + nextPollMs();
  let stopped = false;

  /** Within ten percent of the period, so that a fleet does not poll in step. */
  function nextPollMs(): number {
    return Math.round(pollMs * 0.9) + jitterMs(entropy, pollMs * 0.2);
  }

  async function refused(payload: Uint8Array, refusal: Refusal, fingerprint: string): Promise<void> {
    if (passing.has(refusal.code)) {
      heldBack = payload;
      retryAtMs = clock.mono() + backoff.nextMs();
      log.emit('debug', 'trust.refused', { what: 'assignment', ...refusal });
      return;
    }
    if (mayPass(refusal.code)) heldBack = payload;
    const { id } = await refusals.record(refusal, fingerprint);
    log.emit('warn', 'assignment.refused', { id, ...refusal });
  }

  async function judge(payload: Uint8Array): Promise<void> {
    if (payload.length > limits.busMessageBytesMax) {
      const detail = `desired has ${payload.length} bytes, limit ${limits.busMessageBytesMax}`;
      return refused(payload, { code: 'message-malformed', detail }, sha256Hex(payload));
    }
    const message = parseMessage(desiredMessageSchema, payload);
    if (!message.ok) return refused(payload, message.refusal, sha256Hex(payload));
    const { envelope, move } = message.value;
    // It proves itself: whatever becomes of the assignment.
    if (move !== undefined) parts.onMove?.(move);
    const dueMs = refreshAtMs;
    refreshAtMs = Number.POSITIVE_INFINITY;
    const considered = await authority.consider(envelope);
    // A fresh assignment came with a refresh. Not with one of what rang since: that may be newer than what was fetched.
    if (!considered.ok || !considered.value.fresh) refreshAtMs = Math.min(refreshAtMs, dueMs);
    // The head around it is new each time a registry sends it again; the envelope is what was refused.
    if (!considered.ok) return refused(payload, considered.refusal, sha256Hex(encodeMessage(envelope)));
    const { assignment, fresh } = considered.value;
    heldBack = null;
    retryAtMs = Number.POSITIVE_INFINITY;
    backoff.reset();
    if (fresh) {
      log.emit('info', 'assignment.accepted', {
        epoch: assignment.epoch,
        releases: assignment.releases.map((release) => release.releaseId),
      });
      parts.onAccepted();
    }
    if (fresh || handedOver !== assignment.epoch) await handOver(assignment);
  }

  async function handOver(assignment: Assignment): Promise<void> {
    await parts.assign(assignment);
    handedOver = assignment.epoch;
  }

  async function refresh(): Promise<void> {
    refreshAtMs = Number.POSITIVE_INFINITY;
    const result = await authority.refresh();
    refusedByDate = !result.ok && result.refusal.code === 'metadata-expired';
    if (result.ok) {
      for (const one of result.value.refused) await refusedCatalogue(one);
      // What the catalogue did not name before, it may name now.
      if (result.value.changed && heldBack !== null) retryAtMs = clock.mono();
      return;
    }
    const { refusal } = result;
    if (passing.has(refusal.code)) {
      log.emit('debug', 'trust.refused', { what: 'catalogue', ...refusal });
      refreshAtMs = clock.mono() + backoff.nextMs();
      return;
    }
    await refusedCatalogue(refusal);
  }

  async function refusedCatalogue(refusal: Refusal): Promise<void> {
    const { id } = await refusals.record(refusal, `catalogue ${refusal.detail}`);
    log.emit('warn', 'trust.refused', { what: 'catalogue', id, ...refusal });
  }

  /** One round; a fault of the disk or a bug ends the round, not the following. */
  async function round(): Promise<void> {
    const nowMs = clock.mono();
    if (nowMs >= pollAtMs) {
      pollAtMs = nowMs + nextPollMs();
      refreshAtMs = nowMs;
      await parts.askAgain();
    }
    if (nowMs >= retryAtMs) {
      retryAtMs = Number.POSITIVE_INFINITY;
      if (heldBack !== null) {
        waiting.push(heldBack);
        heldBack = null;
      }
    }
    for (let payload = waiting.shift(); payload !== undefined; payload = waiting.shift()) {
      try {
        await judge(payload);
      } catch (error) {
        heldBack = payload;
        throw error;
      }
    }
    if (clock.mono() >= refreshAtMs) await refresh();
  }

  async function run(): Promise<void> {
    // What was accepted before a power cut may not have reached the update machine's journal.
    const known = authority.assignment();
    if (known !== null) await guarded(() => handOver(known));
    while (!stopped) {
      const online = parts.online();
      const nextAtMs = online ? Math.min(refreshAtMs, retryAtMs, pollAtMs) : pollAtMs;
      await bell.wait(Math.max(0, nextAtMs - clock.mono()));
      if (stopped) return;
      if (parts.online()) await guarded(round);
      else if (clock.mono() >= pollAtMs) pollAtMs = clock.mono() + nextPollMs();
    }
  }

  async function guarded(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const fault = asFleetError(error);
      log.emit('error', 'trust.refused', { what: 'assignment', code: fault.code, detail: fault.message });
      retryAtMs = clock.mono() + backoff.nextMs();
      refreshAtMs = retryAtMs;
    }
  }

  const running = run();
  return {
    receive: (payload) => {
      waiting.push(payload);
      if (waiting.length > waitingMax) waiting.shift();
      bell.ring();
    },
    doorbell: (payload) => {
      if (authority.holdsTimestamp(payload)) return;
      refreshAtMs = Math.min(refreshAtMs, clock.mono() + jitterMs(entropy, doorbellSpreadMs));
      bell.ring();
    },
    clockVerified: () => {
      if (heldBack !== null) retryAtMs = clock.mono();
      if (refusedByDate) refreshAtMs = clock.mono();
      bell.ring();
    },
    connected: () => {
      backoff.reset();
      refreshAtMs = Math.min(refreshAtMs, clock.mono() + jitterMs(entropy, doorbellSpreadMs));
      bell.ring();
    },
    stop: async () => {
      stopped = true;
      bell.ring();
      await running;
    },
  };
}
