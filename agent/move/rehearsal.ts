// Why: before a device leaves its region it is once in the new one: connected with its new certificate, with an assignment
// that the new region's director signed. A region that lets nobody in cannot strand it.
// Trusts: the region root that the order names by its digest, and its successors. Must never: act on that assignment.

import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import type { AgentBus, BusStatus, ConnectBusOptions } from '../../shared/host/mqtt.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkAssignment } from '../../shared/trust/assignment.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import { desiredMessageSchema, parseMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { type BusFetcher, createFetcher, fetchWhole } from '../bus/fetcher.ts';
import type { Joined } from '../trust/moves.ts';
import { walkRegionRoots } from '../trust/region-walk.ts';

export interface RehearsalParts {
  to: ClaimFile;
  joined: Joined;
  seed: Uint8Array;
  deviceId: string;
  /** The highest epoch that this device saw in that region before, 0 where it was never there. */
  epochBefore: number;
  nowMs: number;
  connect(options: ConnectBusOptions): AgentBus;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  signal: AbortSignal;
}

const attemptMs = 30_000;

/** What the director may have signed with keys that only a later root of its region names. */
const curedByRoot: ReadonlySet<ErrorCode> = new Set(['assignment-signature-invalid', 'metadata-expired']);

export interface Rehearsed {
  /** JSON of the assignment's envelope. */
  assignment: string;
  /** Of the new region, and what verified the assignment: what the order names, or a successor of it. */
  regionRoot: Uint8Array;
}

/** Refusals: the broker's, `assignment-*`, `metadata-*`, the Fetcher's, `interrupted`. */
export async function rehearse(parts: RehearsalParts): Promise<Result<Rehearsed>> {
  const { to, joined, deviceId, clock } = parts;
  const pinned = parseRegionRoot(new Uint8Array(Buffer.from(joined.regionRoot, 'base64')));
  if (!pinned.ok) return pinned;
  let root = pinned.value;
  /** Null: nothing to say yet, the next message may be the one. */
  const judge = (payload: Uint8Array): Result<Rehearsed> | null => {
    if (payload.length === 0) return null;
    const message = parseMessage(desiredMessageSchema, payload);
    if (!message.ok) return message;
    const { envelope } = message.value;
    const checked = checkAssignment({
      ...{ envelope, regionRoot: root, deviceId, region: to.region, nowMs: parts.nowMs },
      current: null,
    });
    if (!checked.ok) return checked;
    const { epoch, telemetry } = checked.value.assignment;
    if (epoch <= parts.epochBefore) {
      return refuse('assignment-replayed', `epoch ${epoch}; it had ${parts.epochBefore} there before`);
    }
    // The region is about to make the key, and says so in its next one.
    if (telemetry === null) return null;
    return ok({ assignment: JSON.stringify(envelope), regionRoot: root.bytes });
  };
  const timer = clock.timer(attemptMs);
  let bus: AgentBus | null = null;
  let fetcher: BusFetcher | null = null;
  let interrupt = (): void => undefined;
  try {
    return await new Promise<Result<Rehearsed>>((resolve) => {
      const fail = (error: unknown): void => {
        const fault = asFleetError(error);
        resolve(refuse(fault.code, fault.message));
      };
      /** The region's keys may have changed since the order was written. */
      const judgeByRootInForce = async (payload: Uint8Array, files: BusFetcher): Promise<void> => {
        let judged = judge(payload);
        if (judged?.ok === false && curedByRoot.has(judged.refusal.code)) {
          const walked = await walkRegionRoots(
            root,
            (name, bytesMax) => fetchWhole(files, { kind: 'metadata', name }, bytesMax),
            async (next) => {
              root = next;
            },
          );
          judged = walked.ok ? (walked.value ? judge(payload) : judged) : walked;
        }
        if (judged !== null) resolve(judged);
      };
      void timer.done.then(() =>
        resolve(refuse('broker-unreachable', `no assignment of ${to.region} in ${attemptMs} ms`)),
      );
      interrupt = () => resolve(refuse('interrupted', 'stopped'));
      parts.signal.addEventListener('abort', interrupt);
      const onStatus = (status: BusStatus): void => {
        if (typeof status === 'object') resolve(refuse(status.refused, `the broker at ${to.brokerUrl}`));
      };
      try {
        const line = parts.connect({
          url: to.brokerUrl,
          ca: to.fleetCa,
          cert: joined.certificate,
          key: pkcs8PemFromSeed(parts.seed),
          serverName: authorityServerName(to.fleetCa),
          // As for an enrolment: what counts here is checked by signature.
          admit: () => 'full',
          clientId: deviceId,
          clock,
          entropy: parts.entropy,
          log: parts.log,
          onStatus,
        });
        bus = line;
        const files = createFetcher({
          ...{ bus: line, region: to.region, deviceId, clock, entropy: parts.entropy, log: parts.log },
        });
        fetcher = files;
        const subscribed = Promise.all([
          line.subscribe(deviceTopic(to.region, deviceId, 'bytes'), files.receive),
          line.subscribe(deviceTopic(to.region, deviceId, 'desired'), ({ payload }) => {
            judgeByRootInForce(payload, files).catch(fail);
          }),
        ]);
        subscribed.catch(fail);
      } catch (error) {
        fail(error);
      }
    });
  } finally {
    timer.cancel();
    parts.signal.removeEventListener('abort', interrupt);
    (fetcher as BusFetcher | null)?.offline();
    await (bus as AgentBus | null)?.close();
  }
}
