// Why: how a new device gets its certificate and its roots with a claim, over the one MQTT port (DESIGN 3).
// Trusts: the claim file alone; what the registry sends must match the digests that the claim names.
// Must never: send the device's key, ask with a key that is not yet durable, or take a root unverified.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { certifiesDevice } from '../../shared/crypto/x509.ts';
import type { AgentBus, BusStatus, ConnectBusOptions } from '../../shared/host/mqtt.ts';
import { codes, isErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError, FleetError, refusalError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { authorityServerName, splitPem } from '../../shared/trust/authorities.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import {
  type Envelope,
  encodeMessage,
  enrolReplySchema,
  type Labels,
  parseMessage,
} from '../../shared/wire/messages.ts';
import { enrolClientId, enrolReplyTopic, enrolRequestTopic } from '../../shared/wire/topics.ts';
import { makeCertificateRequest } from '../trust/certificate-request.ts';
import type { NewIdentity } from '../trust/identity.ts';
import { createBackoff } from './backoff.ts';
import { messageHead, randomHex } from './message.ts';
import type { AgentInfo } from './reports.ts';

export interface EnrolmentParts {
  claim: ClaimFile;
  /** Durable already (identity.ts `pendingSeed`). */
  seed: Uint8Array;
  labels: Labels;
  timezone: string;
  agent: AgentInfo;
  /** With a claim that names its devices: this one's own word that it asks. */
  joining?: Envelope;
  connect(options: ConnectBusOptions): AgentBus;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  /** Ends the attempts with the fault `interrupted`. */
  signal: AbortSignal;
}

export interface Enrolled {
  identity: NewIdentity;
  roots: { catalogue: Uint8Array; region: Uint8Array };
}

/** One attempt, from connecting to the reply. A broker that is slow to come up is asked again. */
const attemptMs = 30_000;

/** Checks an answer against the claim and the key. Refusals: the registry's own, `enrolment-root-mismatch`, … */
export function acceptReply(
  payload: Uint8Array,
  parts: Pick<EnrolmentParts, 'claim' | 'seed'>,
): Result<Enrolled> {
  const { claim, seed } = parts;
  const reply = parseMessage(enrolReplySchema, payload);
  if (!reply.ok) return reply;
  const { result } = reply.value;
  if (result.status === 'refused') {
    return refuse(isErrorCode(result.code) ? result.code : 'enrolment-request-invalid', result.detail);
  }
  const publicKey = publicKeyOf(seed);
  const deviceId = deviceIdOf(publicKey);
  if (
    result.deviceId !== deviceId ||
    !certifiesDevice(result.certificate, publicKey, splitPem(claim.fleetCa))
  ) {
    return refuse('enrolment-certificate-invalid', `no certificate of this fleet for device ${deviceId}`);
  }
  const catalogue = new Uint8Array(Buffer.from(result.catalogueRoot, 'base64'));
  const region = new Uint8Array(Buffer.from(result.regionRoot, 'base64'));
  if (sha256Hex(catalogue) !== claim.catalogueRootSha256) {
    return refuse('enrolment-root-mismatch', 'the catalogue root is not the one that the claim names');
  }
  if (sha256Hex(region) !== claim.regionRootSha256) {
    return refuse('enrolment-root-mismatch', 'the region root is not the one that the claim names');
  }
  const parsedRegion = parseRegionRoot(region);
  if (!parsedRegion.ok) return parsedRegion;
  if (parsedRegion.value.region !== claim.region) {
    return refuse(
      'enrolment-root-mismatch',
      `the region root is of ${parsedRegion.value.region}, not ${claim.region}`,
    );
  }
  return ok({
    identity: {
      seed,
      deviceId,
      certificate: result.certificate,
      region: claim.region,
      brokerUrl: claim.brokerUrl,
      fleetCa: claim.fleetCa,
      labels: result.labels,
      telemetryEpoch: result.telemetryEpoch,
      claimId: claim.claimId,
    },
    roots: { catalogue, region },
  });
}

/** One attempt, over a line of its own. Refusals: those of `enrol`, `broker-unreachable`, `interrupted`. */
export async function enrolOnce(
  parts: EnrolmentParts,
  csr: string = makeCertificateRequest(parts.seed),
): Promise<Result<Enrolled>> {
  const { claim, clock, entropy, log } = parts;
  const attemptId = randomHex(entropy, 8);
  const timer = clock.timer(attemptMs);
  let bus: AgentBus | null = null;
  let interrupt = (): void => undefined;
  try {
    return await new Promise<Result<Enrolled>>((resolve) => {
      const fail = (error: unknown): void => {
        const fault = asFleetError(error);
        resolve(refuse(fault.code, fault.message));
      };
      void timer.done.then(() => resolve(refuse('broker-unreachable', `no answer in ${attemptMs} ms`)));
      interrupt = () => resolve(refuse('interrupted', 'stopped'));
      parts.signal.addEventListener('abort', interrupt);

      const request = async (line: AgentBus): Promise<void> => {
        await line.subscribe(enrolReplyTopic(claim.region, claim.claimId, attemptId), (message) => {
          resolve(acceptReply(message.payload, parts));
        });
        const body = encodeMessage({
          ...messageHead(clock, entropy),
          csr,
          labels: parts.labels,
          timezone: parts.timezone,
          agent: parts.agent,
          ...(parts.joining === undefined ? {} : { joining: parts.joining }),
        });
        await line.publish(enrolRequestTopic(claim.region, claim.claimId, attemptId), body, {
          qos: 1,
          retain: false,
        });
      };
      const onStatus = (status: BusStatus): void => {
        if (status === 'connected') {
          // The first status may come while `connect` still runs.
          queueMicrotask(() => {
            if (bus !== null) request(bus).catch(fail);
          });
        } else if (typeof status === 'object')
          resolve(refuse(status.refused, `the broker at ${claim.brokerUrl}`));
      };
      try {
        bus = parts.connect({
          url: claim.brokerUrl,
          ca: claim.fleetCa,
          cert: claim.certificate,
          key: claim.privateKey,
          serverName: authorityServerName(claim.fleetCa),
          // Without a region root no signed time can be had, and nothing here depends on a date: whatever a
          // broker answers is checked by digest and signature against the claim.
          admit: () => 'full',
          clientId: enrolClientId(claim.claimId, attemptId),
          clock,
          entropy,
          log,
          onStatus,
        });
      } catch (error) {
        fail(error);
      }
    });
  } finally {
    timer.cancel();
    // A device that waits for its registry for weeks makes many attempts on one signal.
    parts.signal.removeEventListener('abort', interrupt);
    await (bus as AgentBus | null)?.close();
  }
}

/**
 * Enrols, trying again for as long as the reason may pass (no network, no registry yet).
 * Faults: the registry's refusals (`claim-expired`, `claim-used-up`, `claim-unknown`, …),
 * `enrolment-root-mismatch`, `interrupted`.
 */
export async function enrol(parts: EnrolmentParts): Promise<Enrolled> {
  const { log, clock, entropy, signal } = parts;
  const csr = makeCertificateRequest(parts.seed);
  const backoff = createBackoff(entropy, limits.reconnectBaseMs, limits.reconnectMaxMs);
  const aborted = new Promise<void>((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  );
  for (;;) {
    const result = await enrolOnce(parts, csr);
    if (result.ok) return result.value;
    const { code, detail } = result.refusal;
    if (signal.aborted) throw new FleetError('interrupted', 'stopped before the enrolment was done');
    if (codes[code].retry === 'never') {
      log.emit('error', 'agent.enrolment.refused', { code, detail });
      throw refusalError(result.refusal);
    }
    const waitMs = backoff.nextMs();
    log.emit('warn', 'agent.enrolment.retry', { code, detail, waitMs });
    const timer = clock.timer(waitMs);
    await Promise.race([timer.done, aborted]);
    timer.cancel();
    if (signal.aborted) throw new FleetError('interrupted', 'stopped before the enrolment was done');
  }
}
