// Why: asks the region what time it is, one question at a time, and takes one answer to it (DESIGN 3 "Time").
// Trusts: the `time` keys of the region root, and an answer only to the question that waits.
// Must never: be moved by an answer that was not asked for, nor let a stream of forged ones fill the store.

import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Bus, Clock, Entropy, Log, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { RegionRoot } from '../../shared/trust/region.ts';
import { checkTime } from '../../shared/trust/time.ts';
import { encodeMessage, parseMessage, signedMessageSchema } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { type TrustedClock, vouchersOf } from '../trust/clock.ts';
import { createBackoff, jitterMs } from './backoff.ts';
import { createDoorbell } from './doorbell.ts';
import { messageHead, randomHex } from './message.ts';

export interface TimeParts {
  bus: Bus & { connected(): boolean };
  time: TrustedClock;
  regionRoot(): RegionRoot;
  region: string;
  deviceId: string;
  onRefused(refusal: Refusal, fingerprint: string): void;
  /** Signed time was taken. Must not block. */
  onVerified(): void;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  /** Shorter in tests. */
  answerMs?: number;
}

export interface TimeAsker {
  /** Handler of `time/reply`. */
  receive(payload: Uint8Array): void;
  /** Asks now, whatever the session is for. Refusals: `time-unavailable`, `bus-offline`. */
  ask(): Promise<Result<void>>;
  /** A full session stands: it is asked soon, and once a day. */
  connected(): void;
  offline(): void;
  stop(): Promise<void>;
}

/** Forged answers judged for one question; what comes after is not even looked at. */
const answersMax = 4;
/** First pause after a question that nobody answered. */
const retryBaseMs = 30_000;

interface Question {
  nonce: string;
  askedMonoMs: number;
  answersLeft: number;
  timer: Timer;
  settle(result: Result<void>): void;
}

export function createTimeAsker(parts: TimeParts): TimeAsker {
  const { bus, time, region, deviceId, clock, entropy, log } = parts;
  const answerMs = parts.answerMs ?? limits.timeAnswerMs;
  const topic = deviceTopic(region, deviceId, 'time');
  const bell = createDoorbell(clock);
  const backoff = createBackoff(entropy, retryBaseMs, limits.timeEveryMs / 24);
  let question: Question | null = null;
  let asking: Promise<Result<void>> | null = null;
  let nextAtMs = Number.POSITIVE_INFINITY;
  let stopped = false;

  function end(of: Question, result: Result<void>): void {
    if (question !== of) return;
    question = null;
    of.timer.cancel();
    of.settle(result);
  }

  function put(): Promise<Result<void>> {
    return new Promise((settle) => {
      const nonce = randomHex(entropy, 16);
      const timer = clock.timer(answerMs);
      const own = { nonce, askedMonoMs: clock.mono(), answersLeft: answersMax, timer, settle };
      question = own;
      void timer.done.then(() => end(own, refuse('time-unavailable', `no answer in ${answerMs} ms`)));
      const body = encodeMessage({ ...messageHead(clock, entropy), nonce });
      bus.publish(topic, body, { qos: 1, retain: false }).catch((error: unknown) => {
        end(own, refuse('bus-offline', asFleetError(error).message));
      });
    });
  }

  function read(
    { nonce }: Question,
    regionRoot: RegionRoot,
    payload: Uint8Array,
  ): Result<{ timeMs: number; keys: string[] }> {
    const message = parseMessage(signedMessageSchema, payload);
    if (!message.ok) return message;
    const { envelope } = message.value;
    const checked = checkTime({ envelope, regionRoot, deviceId, region, nonce });
    if (!checked.ok) return checked;
    return ok({ timeMs: checked.value, keys: vouchersOf(envelope, regionRoot, 'time') });
  }

  async function judge(own: Question, payload: Uint8Array): Promise<void> {
    const root = parts.regionRoot();
    const checked = read(own, root, payload);
    if (!checked.ok) {
      const { refusal } = checked;
      log.emit('warn', 'clock.refused', { ...refusal });
      // The genuine answer may still come: whoever owns the bus must not be able to end the question.
      parts.onRefused(refusal, `time ${refusal.code} ${refusal.detail}`);
      return;
    }
    const { timeMs, keys } = checked.value;
    // Taken: the same answer again, held back a while, would move the clock back by that while.
    own.answersLeft = 0;
    const { askedMonoMs } = own;
    const wallMs = clock.wall();
    try {
      await time.answered({ timeMs, askedMonoMs, keys });
    } catch (error) {
      // It counts for this start; the floor rises with the next answer.
      log.emit('warn', 'clock.refused', { while: 'storing the floor', detail: asFleetError(error).message });
    }
    log.emit('info', 'clock.verified', { timeMs, wallOffMs: Math.round(wallMs - time.nowMs()) });
    end(own, ok());
    parts.onVerified();
  }

  function ask(): Promise<Result<void>> {
    asking ??= put().finally(() => {
      asking = null;
    });
    return asking;
  }

  async function run(): Promise<void> {
    while (!stopped) {
      // Off the line nothing can be asked, however due it is: the bell rings with the next connection.
      const dueMs = bus.connected() ? nextAtMs - clock.mono() : limits.timeEveryMs;
      await bell.wait(Math.max(0, Math.min(limits.timeEveryMs, dueMs)));
      if (stopped) return;
      if (!bus.connected() || clock.mono() < nextAtMs) continue;
      const answered = await ask();
      if (answered.ok) {
        backoff.reset();
        nextAtMs =
          clock.mono() + Math.round(limits.timeEveryMs * 0.9) + jitterMs(entropy, limits.timeEveryMs * 0.2);
      } else {
        nextAtMs = clock.mono() + backoff.nextMs();
        log.emit('debug', 'clock.refused', { ...answered.refusal });
      }
    }
  }

  const running = run();
  return {
    receive: (payload) => {
      const own = question;
      // Late, or nobody asked: it says nothing.
      if (own === null || own.answersLeft === 0) return;
      own.answersLeft -= 1;
      void judge(own, payload);
    },
    ask,
    connected: () => {
      nextAtMs = clock.mono();
      bell.ring();
    },
    offline: () => {
      if (question !== null) end(question, refuse('bus-offline', 'the connection was lost'));
    },
    stop: async () => {
      stopped = true;
      if (question !== null) end(question, refuse('interrupted', 'stopped'));
      bell.ring();
      await running;
    },
  };
}
