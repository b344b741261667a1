// Why: brings the outbox to the region, batch after batch in order of sequence, and deletes what the region
// has signed for (DESIGN 8). Trusts: answers under the region's `ack` key, nothing else on the bus.
// Must never: delete on the broker's word, skip a sequence, or repeat without a pause what was refused.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { codes, isErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Bus, Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import type { RegionRoot } from '../../shared/trust/region.ts';
import { checkAnswer, encodeBatchMessage, signStatement } from '../../shared/trust/telemetry.ts';
import { parseMessage, signedMessageSchema } from '../../shared/wire/messages.ts';
import { type BatchAnswer, resendBatchesMax } from '../../shared/wire/telemetry.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { createBackoff } from '../bus/backoff.ts';
import { createDoorbell } from '../bus/doorbell.ts';
import type { ClosedBatch, Outbox } from './outbox-port.ts';
import {
  answered,
  askedToPause,
  type Pace,
  paced,
  reconnected,
  startPace,
  unanswered,
  windowOf,
} from './pace.ts';

export interface SenderParts {
  outbox: Outbox;
  bus: Bus & { connected(): boolean };
  signer: Signer;
  deviceId: string;
  region: string;
  /** The region root in force; its `ack` keys sign the answers. */
  regionRoot(): RegionRoot;
  /** Something that a person should hear of. Must not block. */
  onRefused(refusal: Refusal, fingerprint: string): void;
  /** The counters changed by what the region signed for. */
  onAcknowledged?(): void;
  /** The region lost what it had signed for (it was restored): its own signed answer, as bytes. Must not block. */
  giveBack?(acknowledgement: Uint8Array): void;
  /** Whether somebody waits for an answer of this device's models; a backlog goes slower then. */
  busy?(): boolean;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  window?: number;
  batchAgeMs?: number;
  answerMs?: number;
  /** After so long on one line a gap that stays is tried again. */
  gapAgainMs?: number;
}

export interface Sender {
  /** Handler of `telemetry/ack`. */
  receive(payload: Uint8Array): void;
  /** The bus is back: everything that was not answered is sent again. */
  connected(): void;
  /** There is a new key. */
  keyChanged(): void;
  /** What is on its way was not taken: everything goes again, after this long. */
  holdOff(ms: number): void;
  stop(): Promise<void>;
}

/** Answers waiting to be judged; a flood loses its newest, which are sent again. */
const answersMax = 64;
/** How long the loop sleeps where only a ring can bring something new. */
const idleMs = 60_000;
/** The region will never take such a batch; its records are lost, and its tombstone lets the chain go on. */
const hopeless: ReadonlySet<string> = new Set([
  'telemetry-key-unknown',
  'telemetry-unreadable',
  'telemetry-too-large',
  'telemetry-wrap-mismatch',
]);
/** A refusal that another attempt may cure becomes hopeless after so many. */
const attemptsMax = 5;

interface UnderWay {
  headSha256: string;
  format: string;
  sentAtMs: number;
}

export function startSender(parts: SenderParts): Sender {
  const { outbox, bus, signer, deviceId, region, clock, entropy, log } = parts;
  const windowMax = parts.window ?? limits.outboxWindow;
  const batchAgeMs = parts.batchAgeMs ?? limits.batchAgeMs;
  const answerMs = parts.answerMs ?? limits.telemetryAnswerMs;
  const gapAgainMs = parts.gapAgainMs ?? limits.giveBackEveryMs;
  const topic = deviceTopic(region, deviceId, 'telemetry');
  const bell = createDoorbell(clock);
  const backoff = createBackoff(entropy);
  const underWay = new Map<number, UnderWay>();
  const answers: Uint8Array[] = [];
  /** Highest sequence sent since the last time it went back. */
  let sentUpTo = 0;
  let pace: Pace = startPace(windowMax);
  /** Where requests are answered beside it, the next batch goes not before this. */
  let gapUntilMs = Number.NEGATIVE_INFINITY;
  let retryAtMs = Number.NEGATIVE_INFINITY;
  /** Refused for good: nothing is sent before the next connection or key. */
  let halted = false;
  let lastRefused = { sequence: 0, attempts: 0 };
  let stopped = false;

  function goBack(): void {
    underWay.clear();
    outbox.underWay([]);
    sentUpTo = 0;
  }

  function pause(): void {
    goBack();
    retryAtMs = clock.mono() + backoff.nextMs();
  }

  // --- sending ---

  /** Sends what may be sent; milliseconds until there may be more. */
  async function send(): Promise<number> {
    if (halted || !outbox.ready() || !bus.connected()) return idleMs;
    const nowMs = clock.mono();
    if (nowMs < retryAtMs) return retryAtMs - nowMs;
    const oldest = [...underWay.values()][0];
    if (oldest !== undefined && nowMs - oldest.sentAtMs >= answerMs) {
      log.emit('debug', 'telemetry.refused', { code: 'fetch-timeout', detail: 'no answer', resend: true });
      pace = unanswered(pace);
      pause();
      return Math.max(0, retryAtMs - nowMs);
    }
    while (underWay.size < windowOf(pace) && !tooFarAhead() && !stopped) {
      const heldBackMs = Math.max(pace.notBeforeMs, gapUntilMs) - clock.mono();
      if (heldBackMs > 0) return Math.min(heldBackMs, untilAnswerMs());
      const batch = await outbox.next(sentUpTo);
      if (batch.kind === 'none') break;
      if (batch.kind === 'closed') {
        publish(batch);
        holdBack();
        continue;
      }
      if (!batch.behind && batch.ageMs < batchAgeMs) return batchAgeMs - batch.ageMs;
      await outbox.closeBatch(batch.sequence);
    }
    return untilAnswerMs();
  }

  /** With one answer lost and all later ones there, the batch would be too old to come again. */
  function tooFarAhead(): boolean {
    const [oldest] = underWay.keys();
    return oldest !== undefined && sentUpTo >= oldest + resendBatchesMax - 1;
  }

  /** Until the oldest that is under way counts as unanswered. */
  function untilAnswerMs(): number {
    const first = [...underWay.values()][0];
    return first === undefined ? idleMs : Math.max(0, first.sentAtMs + answerMs - clock.mono());
  }

  function holdBack(): void {
    const nowMs = clock.mono();
    const { bytes } = outbox.counters();
    const next = paced(pace, { busy: parts.busy?.() ?? false, bytes, nowMs });
    pace = next.pace;
    gapUntilMs = nowMs + next.gapMs;
  }

  function publish(batch: ClosedBatch): void {
    const { sequence, headSha256, statement, headBytes, wrap, body } = batch;
    const envelope = signStatement({ ...statement, headBytes, wrap, body }, signer);
    sentUpTo = sequence;
    underWay.set(sequence, { headSha256, format: statement.format, sentAtMs: clock.mono() });
    outbox.underWay([...underWay.keys()]);
    const message = encodeBatchMessage({ envelope, wrap, body });
    bus.publish(topic, message, { qos: 1, retain: false }).catch((error: unknown) => {
      const fault = asFleetError(error);
      log.emit(fault.code === 'bus-offline' ? 'debug' : 'warn', 'telemetry.refused', {
        sequence,
        code: fault.code,
        detail: fault.message,
      });
      pause();
      bell.ring();
    });
    log.emit('debug', 'telemetry.sent', { sequence, format: statement.format, bytes: message.length });
  }

  // --- answers ---

  async function judge(payload: Uint8Array): Promise<void> {
    const message = parseMessage(signedMessageSchema, payload);
    const checked = message.ok
      ? checkAnswer({ envelope: message.value.envelope, regionRoot: parts.regionRoot(), deviceId, region })
      : message;
    if (!checked.ok) return forged(checked.refusal.detail, payload);
    const answer = checked.value;
    // From before a new enrolment: of no use to anybody.
    if (answer.epoch !== outbox.epoch()) return;
    const { pauseMs } = answer;
    if (pauseMs !== undefined) {
      pace = askedToPause(pace, { pauseMs, nowMs: clock.mono(), chance: entropy.u32() / 2 ** 32 });
      log.emit('debug', 'telemetry.paused', { pauseMs, window: windowOf(pace) });
    } else if (answer.result.status === 'stored') pace = answered(pace, windowMax);
    if (answer.result.status === 'stored') {
      const envelope = message.ok ? JSON.stringify(message.value.envelope) : undefined;
      await stored(answer, answer.result.records, payload, envelope);
    } else await refused(answer, answer.result);
  }

  function forged(detail: string, payload: Uint8Array): void {
    const refusal: Refusal = { code: 'telemetry-answer-invalid', detail };
    log.emit('warn', 'telemetry.refused', { ...refusal });
    parts.onRefused(refusal, sha256Hex(payload));
  }

  async function stored(
    answer: BatchAnswer,
    records: number,
    payload: Uint8Array,
    envelope: string | undefined,
  ): Promise<void> {
    const { sequence, headSha256 } = answer;
    const outcome = await outbox.acknowledge(sequence, headSha256, records, envelope);
    if (outcome === 'other') return forged(`sequence ${sequence} has another head here`, payload);
    underWay.delete(sequence);
    outbox.underWay([...underWay.keys()]);
    if (outcome === 'unknown') return;
    backoff.reset();
    lastRefused = { sequence: 0, attempts: 0 };
    log.emit('debug', 'telemetry.acknowledged', { sequence, records });
    parts.onAcknowledged?.();
  }

  async function refused(
    answer: BatchAnswer,
    result: BatchAnswer['result'] & { status: 'refused' },
  ): Promise<void> {
    const { sequence } = answer;
    const sent = underWay.get(sequence);
    // Of an attempt that was given up since: what was sent after it was refused as a gap.
    if (sent === undefined || sent.headSha256 !== answer.headSha256) return;
    const { code, detail, expectedSequence } = result;
    log.emit('warn', 'telemetry.refused', { sequence, code, detail, expectedSequence });
    lastRefused = {
      sequence,
      attempts: lastRefused.sequence === sequence ? lastRefused.attempts + 1 : 1,
    };
    if (code === 'telemetry-gap' && lastRefused.attempts < attemptsMax) {
      const lowest = await outbox.lowest();
      if (lowest !== null && lowest <= expectedSequence) return pause();
      // What it waits for was acknowledged and deleted here: it shall see its own signature.
      const acknowledgement = parts.giveBack === undefined ? null : await outbox.newestAcknowledgement();
      if (acknowledgement !== null) {
        parts.giveBack?.(new TextEncoder().encode(acknowledgement));
        return pause();
      }
    }
    if (isErrorCode(code) && codes[code].retry !== 'never' && code !== 'telemetry-gap') {
      if (lastRefused.attempts < attemptsMax || code !== 'telemetry-body-mismatch') return pause();
    }
    parts.onRefused(
      {
        code: isErrorCode(code) ? code : 'telemetry-malformed',
        detail: `the region refused batch ${sequence} (${code}): ${detail}`,
      },
      `telemetry ${answer.epoch} ${sequence} ${code}`,
    );
    if (hopeless.has(code) || code === 'telemetry-body-mismatch') {
      // No longer under way, or it could not be dropped.
      goBack();
      if (sent.format !== 'tombstone' && (await outbox.drop(sequence, code))) return;
    }
    goBack();
    log.emit('error', 'telemetry.halted', { sequence, code, detail });
    if (code !== 'telemetry-gap') {
      halted = true;
      return;
    }
    // It has lost what it acknowledged, and what was given back may have been lost on it as well: that is given again then.
    lastRefused = { sequence: 0, attempts: 0 };
    retryAtMs = clock.mono() + gapAgainMs;
  }

  // --- the loop ---

  async function round(): Promise<number> {
    try {
      for (let payload = answers.shift(); payload !== undefined; payload = answers.shift()) {
        await judge(payload);
      }
      return await send();
    } catch (error) {
      const fault = asFleetError(error);
      log.emit('error', 'outbox.failed', { while: 'sending', code: fault.code, detail: fault.message });
      pause();
      return Math.max(0, retryAtMs - clock.mono());
    }
  }

  async function run(): Promise<void> {
    while (!stopped) {
      const waitMs = await round();
      if (!stopped && answers.length === 0) await bell.wait(waitMs);
    }
  }

  outbox.onChange(() => bell.ring());
  const running = run();
  return {
    receive: (payload) => {
      if (answers.length < answersMax) answers.push(payload);
      bell.ring();
    },
    connected: () => {
      halted = false;
      retryAtMs = Number.NEGATIVE_INFINITY;
      pace = reconnected(pace);
      goBack();
      bell.ring();
    },
    keyChanged: () => {
      halted = false;
      goBack();
      bell.ring();
    },
    holdOff: (ms) => {
      goBack();
      retryAtMs = clock.mono() + ms;
      bell.ring();
    },
    stop: async () => {
      stopped = true;
      bell.ring();
      await running;
    },
  };
}
