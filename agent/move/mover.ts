// Why: the shell around the move machine: judges orders, journals each phase durably before it acts, tries the new region and
// asks for the switch. Loaded only once an order came.
// Trusts: the catalogue root that the device refreshed just before; the new region for what it signs for itself.
// Must never: act on an order that the root in force does not stand behind, or hold up what serves.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import type { AgentBus, ConnectBusOptions } from '../../shared/host/mqtt.ts';
import { codes, type ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkMove, openMove, signJoining } from '../../shared/trust/device-move.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import type { MoveOrder } from '../../shared/wire/device-move.ts';
import { type Envelope, encodeMessage, type Labels, type ReportedModel } from '../../shared/wire/messages.ts';
import { createBackoff } from '../bus/backoff.ts';
import { createDoorbell } from '../bus/doorbell.ts';
import { enrolOnce } from '../bus/enrolment.ts';
import type { AgentInfo } from '../bus/reports.ts';
import type { Authority } from '../trust/authority.ts';
import { begun, type Identity } from '../trust/identity.ts';
import type { Keeper, NextRegion } from '../trust/keeper.ts';
import type { Joined, Moves } from '../trust/moves.ts';
import { heldEnvelope } from '../trust/trust-store.ts';
import { afterMove, type MoveEffect, type MoveEvent, moveTable, stepMove } from './move-machine.ts';
import { inTheMiddle } from './quiet.ts';
import { rehearse } from './rehearsal.ts';

export interface MoverParts {
  keeper: Keeper;
  authority(): Authority;
  identity(): Identity;
  models(): ReportedModel[];
  labels(): Labels;
  timezone: string;
  agent(): AgentInfo;
  /** Records a refusal; returns at once. */
  remember(refusal: Refusal, fingerprint: string): void;
  /** What a report says of it changed. */
  changed(): void;
  /**
   * Leaves the present region, commits, and goes on in the new one; durable when it resolves. False where an update began
   * meanwhile: then nothing changed.
   */
  switchTo(next: NextRegion): Promise<boolean>;
  connect(options: ConnectBusOptions): AgentBus;
  clock: Clock;
  entropy: Entropy;
  log: Log;
}

export interface Mover {
  /** An order that came with `desired`; it is judged later. */
  ordered(envelope: Envelope): void;
  /** Something may be quiet now that was not. */
  look(): void;
  stop(): Promise<void>;
}

/** Regions whose telemetry is still on the device; with more the next move waits. */
export const leftChainsMax = 4;
/** While it waits for an update it looks again at least so often. */
const lookEveryMs = 5_000;
const pauseMsMin = 1_000;
const pauseMsMax = 300_000;
/** A flood of badly signed orders must not become a flood of requests for a newer root. */
const refreshGapMs = 10_000;
/** Orders that wait to be judged: a flood loses its oldest. */
const waitingMax = 4;

export function startMover(parts: MoverParts): Mover {
  const { keeper, clock, entropy, log } = parts;
  const bell = createDoorbell(clock);
  const backoff = createBackoff(entropy, pauseMsMin, pauseMsMax);
  const judging = createBackoff(entropy, pauseMsMin, pauseMsMax);
  const aborted = new AbortController();
  const waiting: Envelope[] = [];
  let effect: MoveEffect = 'none';
  /** Monotonic; before it nothing is tried, and no order judged. */
  let notBeforeMs = Number.NEGATIVE_INFINITY;
  let judgeAtMs = Number.NEGATIVE_INFINITY;
  let refreshedMs = Number.NEGATIVE_INFINITY;
  let stopped = false;
  const held = (): Moves => keeper.held().moves;
  const nowMs = (): number => parts.authority().time.nowMs();

  async function dispatch(event: MoveEvent): Promise<void> {
    const before = held();
    const step = stepMove(before, event);
    const isNews = JSON.stringify(step.next) !== JSON.stringify(before);
    // Durable before it is acted on.
    if (isNews) await keeper.moves((present) => stepMove(present, event).next);
    effect = step.effect;
    const { moveId, to } = step.next.under ?? before.under ?? { moveId: before.lastMoveId, to: null };
    if (step.ended !== null) log.emit('warn', 'move.ended', { moveId, to, ...step.ended });
    else if ('reason' in event) {
      log.emit('info', event.type === 'busy' ? 'move.waiting' : 'move.failed', {
        moveId,
        to,
        ...event.reason,
      });
    }
    if (isNews) parts.changed();
  }

  // --- orders ---

  function check(envelope: Envelope): ReturnType<typeof checkMove> {
    const root = trustRoot(housePolicy, parts.authority().catalogueRoot());
    if (!root.ok) return root;
    const { deviceId, region } = parts.identity();
    const { lastIssuedAtMs, lastMoveId } = held();
    return checkMove(envelope, root.value, { deviceId, region, lastIssuedAtMs, lastMoveId, nowMs: nowMs() });
  }

  /** False where it is to be judged again later: the root could not be refreshed. */
  async function judge(envelope: Envelope): Promise<boolean> {
    let checked = check(envelope);
    // Known, or wrong whatever root is in force: no reason to ask anybody.
    if (checked.ok && checked.value.known) return true;
    const mayHeal = !checked.ok && clock.mono() - refreshedMs >= refreshGapMs;
    if (checked.ok || (mayHeal && checked.refusal.code === 'move-signature-invalid')) {
      refreshedMs = clock.mono();
      // The keys that signed may have been replaced since, or have come with a root that is not here yet.
      const refreshed = await parts.authority().refresh();
      if (!refreshed.ok) {
        log.emit('debug', 'move.waiting', { for: 'the catalogue', ...refreshed.refusal });
        return false;
      }
      checked = check(envelope);
    }
    if (!checked.ok) {
      log.emit('warn', 'move.refused', { ...checked.refusal });
      parts.remember(checked.refusal, sha256Hex(encodeMessage({ payload: envelope.payload })));
      return true;
    }
    const { order } = checked.value;
    judging.reset();
    log.emit('info', 'move.ordered', { moveId: order.moveId, from: order.from, to: order.to.region });
    await dispatch({ type: 'ordered', order, envelope: JSON.stringify(envelope) });
    backoff.reset();
    notBeforeMs = Number.NEGATIVE_INFINITY;
    return true;
  }

  /** The order under way once more by the root in force. Refusals: those of `openMove`, `move-expired`. */
  function orderInForce(): Result<MoveOrder> {
    const { under } = held();
    const envelope = under === null ? null : heldEnvelope(under.envelope);
    if (envelope === null) return refuse('move-malformed', 'the stored order cannot be read');
    const root = trustRoot(housePolicy, parts.authority().catalogueRoot());
    if (!root.ok) return root;
    const opened = openMove(envelope, root.value);
    if (!opened.ok) return opened;
    const { order } = opened.value;
    return order.expiresAtMs <= nowMs() ? refuse('move-expired', 'its time is over') : ok(order);
  }

  // --- what the phases do ---

  function hindrance(): Refusal | null {
    const busy = inTheMiddle(parts.models());
    if (busy !== null) return { code: 'move-waits', detail: `${busy.name} is ${busy.state}` };
    const { chains } = held();
    if (chains.length < leftChainsMax) return null;
    const detail = `telemetry of ${chains.length} earlier regions is not acknowledged yet`;
    return { code: 'move-waits', detail };
  }

  function look(): Promise<void> {
    const hindered = hindrance();
    if (hindered === null) return dispatch({ type: 'quiet' });
    notBeforeMs = clock.mono() + lookEveryMs;
    return dispatch({ type: 'busy', reason: hindered });
  }

  function failed({ code, detail }: Refusal): Promise<void> {
    notBeforeMs = clock.mono() + backoff.nextMs();
    return dispatch({ type: 'failed', reason: { code, detail } });
  }

  async function enrol(order: MoveOrder): Promise<void> {
    const { seed, deviceId } = parts.identity();
    const labels = parts.labels();
    const { moveId, from, to } = order;
    const joining = signJoining(
      {
        ...{ schemaVersion: 1 as const, deviceId, claimId: to.claimId, moveId, from, to: to.region },
        ...{ labels, timezone: parts.timezone },
        runs: parts
          .models()
          .flatMap(({ name, active, activeSha256 }) =>
            active === null || activeSha256 === null
              ? []
              : [{ as: name, releaseId: active, manifestSha256: activeSha256 }],
          ),
      },
      signerFromSeed(seed, 'node'),
    );
    const enrolled = await enrolOnce({
      ...{ claim: to, seed, labels, timezone: parts.timezone, agent: parts.agent(), joining },
      ...{ connect: parts.connect, clock, entropy, log, signal: aborted.signal },
    });
    if (stopped) return;
    if (!enrolled.ok) {
      const { code } = enrolled.refusal;
      if (codes[code].retry !== 'never') return failed(enrolled.refusal);
      parts.remember(enrolled.refusal, `move ${moveId} ${code}`);
      return dispatch({ type: 'over', reason: enrolled.refusal });
    }
    const { identity, roots } = enrolled.value;
    backoff.reset();
    const joined: Joined = {
      certificate: identity.certificate,
      regionRoot: Buffer.from(roots.region).toString('base64'),
      labels: identity.labels,
      telemetryEpoch: identity.telemetryEpoch,
    };
    await dispatch({ type: 'joined', joined });
  }

  async function rehearseAndSwitch(order: MoveOrder): Promise<void> {
    const { joined } = held().under ?? { joined: null };
    if (joined === null) return dispatch({ type: 'over', reason: stateLost });
    const { seed, deviceId, region } = parts.identity();
    const { to } = order;
    const rehearsed = await rehearse({
      ...{ to, joined, seed, deviceId, epochBefore: held().epochs[to.region] ?? 0, nowMs: nowMs() },
      ...{ connect: parts.connect, clock, entropy, log, signal: aborted.signal },
    });
    if (stopped) return;
    if (!rehearsed.ok) {
      parts.remember(rehearsed.refusal, `move ${order.moveId} ${rehearsed.refusal.code}`);
      return failed(rehearsed.refusal);
    }
    const authority = parts.authority();
    const regionRoot = Buffer.from(authority.regionRoot().bytes).toString('base64');
    const left = { region, regionRoot, epoch: authority.epoch(), nowMs: Math.floor(clock.wall()) };
    const identity = begun({
      ...{ seed, deviceId, certificate: joined.certificate, region: to.region, brokerUrl: to.brokerUrl },
      ...{ fleetCa: to.fleetCa, labels: joined.labels, telemetryEpoch: joined.telemetryEpoch },
      claimId: to.claimId,
    });
    const next = {
      // It serves already: an enrolment anew is another device.
      identity: { ...identity, settled: true },
      regionRoot: rehearsed.value.regionRoot,
      // Meanwhile an earlier region may have signed for all that was left of it.
      moves: (present: Moves) => afterMove(present, left, rehearsed.value.assignment),
    };
    const moved = await parts.switchTo(next);
    if (!moved) return dispatch({ type: 'busy', reason: { code: 'move-waits', detail: 'an update began' } });
    effect = 'none';
    log.emit('info', 'move.switched', { moveId: order.moveId, from: region, to: to.region });
  }

  async function act(): Promise<void> {
    const order = orderInForce();
    if (!order.ok) return dispatch({ type: 'over', reason: order.refusal });
    if (effect === 'look') return look();
    return effect === 'enrol' ? enrol(order.value) : rehearseAndSwitch(order.value);
  }

  // --- the loop ---

  /** Milliseconds until there may be more to do. */
  async function round(): Promise<number> {
    try {
      const envelope = waiting[0];
      if (envelope !== undefined && clock.mono() >= judgeAtMs) {
        const judged = await judge(envelope);
        // What came meanwhile stays, and may have pushed this one out.
        if (judged && waiting[0] === envelope) waiting.shift();
        // One that cannot be judged yet does not hold up the one that was.
        if (!judged) judgeAtMs = clock.mono() + judging.nextMs();
        return 0;
      }
      if (effect !== 'none' && clock.mono() >= notBeforeMs) {
        await act();
        return 0;
      }
      const nextMs = Math.min(
        waiting.length > 0 ? judgeAtMs : Number.POSITIVE_INFINITY,
        effect === 'none' ? Number.POSITIVE_INFINITY : notBeforeMs,
        clock.mono() + limits.metadataPollMs,
      );
      return Math.max(1, nextMs - clock.mono());
    } catch (thrown) {
      const fault = asFleetError(thrown);
      log.emit('error', 'move.failed', { code: fault.code, detail: fault.message });
      return pauseMsMin + backoff.nextMs();
    }
  }

  async function run(): Promise<void> {
    const { under } = held();
    if (under !== null) effect = moveTable[under.phase].effect;
    while (!stopped) {
      const waitMs = await round();
      if (!stopped && waitMs > 0) await bell.wait(waitMs);
    }
  }

  const running = run();
  return {
    ordered: (envelope) => {
      waiting.push(envelope);
      if (waiting.length > waitingMax) waiting.shift();
      bell.ring();
    },
    look: () => {
      if (effect !== 'look') return;
      notBeforeMs = Number.NEGATIVE_INFINITY;
      bell.ring();
    },
    stop: async () => {
      stopped = true;
      aborted.abort();
      bell.ring();
      await running;
    },
  };
}

const stateLost: { code: ErrorCode; detail: string } = {
  code: 'move-malformed',
  detail: 'what the new region gave is not there any more',
};
