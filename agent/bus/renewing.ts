// Why: a device keeps its certificate current by itself, and follows its fleet to other authorities.
// Trusts: renewal.ts for what an answer is worth. Must never: use new credentials before they are durable, drop
// the old ones before a connection stood with the new, nor ask again soon what a person has to decide.

import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Bus, Clock, Entropy, Log, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { RegionRoot } from '../../shared/trust/region.ts';
import { type Assignment, encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { makeCertificateRequest } from '../trust/certificate-request.ts';
import type { TrustedClock } from '../trust/clock.ts';
import { type Identity, withRenewed } from '../trust/identity.ts';
import { acceptRenewal, isFinal, renewalDueMs, wantsOtherAuthorities } from '../trust/renewal.ts';
import { createBackoff } from './backoff.ts';
import { createDoorbell } from './doorbell.ts';
import { messageHead } from './message.ts';

export interface RenewingParts {
  bus: Bus & { connected(): boolean };
  identity(): Identity;
  /** Makes it durable; resolves before it is used. */
  save(identity: Identity): Promise<void>;
  /** There are new credentials to connect with. */
  onRenewed(): void;
  onRefused(refusal: Refusal, fingerprint: string): void;
  assignment(): Assignment | null;
  regionRoot(): RegionRoot;
  time: TrustedClock;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  answerMs?: number;
}

export interface Renewing {
  /** Handler of `renew/reply`. */
  receive(payload: Uint8Array): void;
  /** Asks now, whatever the session is for, unless it was refused for good a short while ago. */
  renew(): Promise<Result<void>>;
  /** A session stands, or the assignment or the clock changed: it is looked whether a renewal is due. */
  look(): void;
  offline(): void;
  /** A broker that denies a certificate of today will not like the next one better. */
  renewedLately(): boolean;
  /** Milliseconds until a refusal for good is worth another try; 0 where there was none. */
  restMs(): number;
  /** Why the registry gives no certificate at present, or null. */
  refusedBy(): string | null;
  stop(): Promise<void>;
}

const retryBaseMs = 60_000;
const retryMaxMs = 3_600_000;
const lookEveryMs = 3_600_000;

export function createRenewing(parts: RenewingParts): Renewing {
  const { bus, time, clock, entropy, log } = parts;
  const { region, deviceId } = parts.identity();
  const answerMs = parts.answerMs ?? limits.renewAnswerMs;
  const topic = deviceTopic(region, deviceId, 'renew');
  const bell = createDoorbell(clock);
  const backoff = createBackoff(entropy, retryBaseMs, retryMaxMs);
  const share = entropy.u32() / 2 ** 32;
  let waiting: { timer: Timer; settle(answer: Result<Uint8Array>): void } | null = null;
  let renewing: Promise<Result<void>> | null = null;
  let notBeforeMs = Number.NEGATIVE_INFINITY;
  let renewedAtMs = Number.NEGATIVE_INFINITY;
  let refused: Refusal | null = null;
  let stopped = false;

  function settle(answer: Result<Uint8Array>): void {
    const was = waiting;
    waiting = null;
    was?.timer.cancel();
    was?.settle(answer);
  }

  function request(): Promise<Result<Uint8Array>> {
    return new Promise((resolve) => {
      const timer = clock.timer(answerMs);
      const own = { timer, settle: resolve };
      waiting = own;
      const unless = (refusal: Result<Uint8Array>): void => {
        if (waiting === own) settle(refusal);
      };
      void timer.done.then(() => unless(refuse('fetch-timeout', `no answer in ${answerMs} ms`)));
      const csr = makeCertificateRequest(parts.identity().seed);
      const body = encodeMessage({ ...messageHead(clock, entropy), csr });
      bus.publish(topic, body, { qos: 1, retain: false }).catch((error: unknown) => {
        unless(refuse('bus-offline', asFleetError(error).message));
      });
    });
  }

  async function once(): Promise<Result<void>> {
    const answer = await request();
    if (!answer.ok) return answer;
    const identity = parts.identity();
    // The floor plays no part: a stolen key could have raised it beyond every certificate.
    const nowMs = time.signed()?.nowMs ?? 0;
    const accepted = acceptRenewal(answer.value, { identity, regionRoot: parts.regionRoot(), nowMs });
    if (!accepted.ok) return accepted;
    await parts.save(withRenewed(identity, accepted.value));
    return ok();
  }

  async function attempt(): Promise<Result<void>> {
    let result: Result<void>;
    try {
      result = await once();
    } catch (thrown) {
      const fault = asFleetError(thrown);
      result = refuse(fault.code, fault.message);
    }
    if (result.ok) {
      refused = null;
      renewedAtMs = clock.mono();
      if (isDue()) {
        // It did not bring what was wanted: a registry that is of two minds must not make it ask for ever.
        notBeforeMs = clock.mono() + backoff.nextMs();
      } else {
        notBeforeMs = Number.NEGATIVE_INFINITY;
        backoff.reset();
      }
      log.emit('info', 'certificate.renewed', { device: deviceId });
      parts.onRenewed();
      return result;
    }
    const { refusal } = result;
    const final = isFinal(refusal.code);
    notBeforeMs = clock.mono() + (final ? limits.renewRefusedMs : backoff.nextMs());
    if (refusal.code === 'bus-offline' || refusal.code === 'interrupted') {
      log.emit('debug', 'certificate.refused', { ...refusal });
      return result;
    }
    refused = refusal;
    log.emit('warn', 'certificate.refused', { ...refusal });
    parts.onRefused(refusal, `renewal ${refusal.code} ${refusal.detail}`);
    return result;
  }

  function renew(): Promise<Result<void>> {
    if (refused !== null && isFinal(refused.code) && clock.mono() < notBeforeMs) {
      return Promise.resolve({ ok: false, refusal: refused });
    }
    renewing ??= attempt().finally(() => {
      renewing = null;
    });
    return renewing;
  }

  const untilDueMs = (): number => renewalDueMs(parts.identity().certificate, share) - time.nowMs();

  function isDue(): boolean {
    return untilDueMs() <= 0 || wantsOtherAuthorities(parts.assignment(), parts.identity().fleetCa);
  }

  async function run(): Promise<void> {
    while (!stopped) {
      const leftMs = untilDueMs();
      await bell.wait(leftMs > 0 ? Math.min(leftMs, lookEveryMs) : lookEveryMs);
      while (!stopped && bus.connected() && isDue()) {
        const restMs = notBeforeMs - clock.mono();
        if (restMs > 0) await bell.wait(restMs);
        else await renew();
      }
    }
  }

  const running = run();
  return {
    receive: (payload) => settle(ok(payload)),
    renew,
    look: () => bell.ring(),
    offline: () => settle(refuse('bus-offline', 'the connection was lost')),
    renewedLately: () => clock.mono() - renewedAtMs < retryMaxMs,
    restMs: () => (refused !== null && isFinal(refused.code) ? Math.max(0, notBeforeMs - clock.mono()) : 0),
    refusedBy: () => refused?.code ?? null,
    stop: async () => {
      stopped = true;
      settle(refuse('interrupted', 'stopped'));
      bell.ring();
      await running;
    },
  };
}
