// Why: attacks on what a device renews or believes for a long time: its certificate, who may issue one, and what time it is.
// Trusts: keys made of names. Must never: need a broker; the same over the wire is in test/agent.

import { type ClockFloor, openTrustedClock, type TrustedClock } from '../../agent/trust/clock.ts';
import { begun } from '../../agent/trust/identity.ts';
import { acceptRenewal, renewalDueMs, wantsOtherAuthorities } from '../../agent/trust/renewal.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import type { CertificateAuthority } from '../../shared/host/certificates.ts';
import { systemClock } from '../../shared/host/clock.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { authoritiesSha256, signAuthorities } from '../../shared/trust/authorities.ts';
import { makeRegionRoot, parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import { type Assignment, type Envelope, encodeMessage } from '../../shared/wire/messages.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import { mallory, region, trusted } from './fleet-region.ts';
import { objects } from './fuzz-seeds.ts';
import { dayMs, encode, nowMs, signerNamed } from './hostile-repository.ts';

const [seed, otherSeed] = [7, 8].map((byte) => new Uint8Array(32).fill(byte)) as [Uint8Array, Uint8Array];
const deviceId = deviceIdOf(publicKeyOf(seed));

/** Loaded by the rows that need it: each process of the mutation run would wait for it. */
const certificates = () => import('../../shared/host/certificates.ts');

const authority = async (byte: number): Promise<CertificateAuthority> => {
  const { makeCertificateAuthority } = await certificates();
  const own = new Uint8Array(32).fill(byte);
  const dates = { notBeforeMs: nowMs - dayMs, notAfterMs: nowMs + 99 * dayMs };
  return {
    seed: own,
    certificatePem: await makeCertificateAuthority({ seed: own, name: 'a fleet', ...dates }),
  };
};

interface Answer {
  /** Of the authority that issued the certificate. */
  issuer: number;
  key: Uint8Array;
  notAfterMs: number;
  sign(authorities: string[]): Envelope;
}

async function renewed(changes: Partial<Answer>): Promise<{ payload: Uint8Array; fleetCa: string }> {
  const { issuer = 1, key = seed, notAfterMs = nowMs + 9 * dayMs } = changes;
  const sign =
    changes.sign ??
    ((named: string[]) =>
      signAuthorities(
        { schemaVersion: 1, region, issuedAtMs: nowMs, certificates: named },
        signerNamed('command'),
      ));
  const { certificatePem } = await authority(1);
  const publicKey = publicKeyOf(key);
  const { issueDeviceCertificate } = await certificates();
  const certificate = await issueDeviceCertificate({
    ...{ ca: await authority(issuer), deviceId: deviceIdOf(publicKey), publicKey },
    ...{ notBeforeMs: nowMs - dayMs, notAfterMs },
  });
  const result = { status: 'accepted', certificate, authorities: sign([certificatePem]) };
  return {
    payload: encodeMessage({ schemaVersion: 1, messageId: 'm', sentAtMs: nowMs, result }),
    fleetCa: certificatePem,
  };
}

const accept = (payload: Uint8Array): Result<unknown> =>
  acceptRenewal(payload, {
    identity: begun({
      ...{ seed, deviceId, certificate: '', region, brokerUrl: '', fleetCa: '', labels: {} },
      ...{ telemetryEpoch: 1, claimId: 'c'.repeat(20) },
    }),
    regionRoot: trusted,
    nowMs,
  });

const row = (
  id: string,
  attack: string,
  code: ErrorCode,
  forged: () => Uint8Array | Promise<Uint8Array>,
): AttackCase =>
  directRow('fleet', `renewal-${id}`, attack, code, async () => ({
    honest: accept((await renewed({})).payload),
    forged: accept(await forged()),
  }));
const answer = (changes: Partial<Answer>) => async (): Promise<Uint8Array> =>
  (await renewed(changes)).payload;

const renewals: AttackCase[] = [
  row('garbage', 'an answer to a renewal that is none', 'message-malformed', () => encode('{')),
  row('refused', 'a refusal of a renewal for a reason that no version knows', 'renewal-refused', () => {
    const result = { status: 'refused', code: 'because', detail: '' };
    return encodeMessage({ schemaVersion: 1, messageId: 'm', sentAtMs: nowMs, result });
  }),
  row(
    'authorities-stranger',
    'whoever owns the bus brings an authority of its own with a renewal',
    'authorities-invalid',
    answer({
      sign: (named) =>
        signAuthorities({ schemaVersion: 1, region, issuedAtMs: nowMs, certificates: named }, mallory),
    }),
  ),
  row(
    'other-authority',
    'a certificate of an authority that the region does not name',
    'enrolment-certificate-invalid',
    answer({ issuer: 2 }),
  ),
  row(
    'other-device',
    'the certificate of another device',
    'enrolment-certificate-invalid',
    answer({ key: otherSeed }),
  ),
  row(
    'over',
    'a certificate that is over already, so that the device is locked out',
    'certificate-expired',
    answer({ notAfterMs: nowMs }),
  ),
  directRow(
    'fleet',
    'renewal-own-torn',
    'the device’s own certificate was cut: it asks for another one at once',
    'certificate-expired',
    async () => {
      const reply: { result: { certificate: string } } = JSON.parse(
        Buffer.from((await renewed({ notAfterMs: nowMs + 90 * dayMs })).payload).toString(),
      );
      const due = (pem: string): Result<void> =>
        renewalDueMs(pem, 0) > nowMs ? ok() : refuse('certificate-expired', 'a renewal is due');
      return { honest: due(reply.result.certificate), forged: due(reply.result.certificate.slice(0, 100)) };
    },
  ),
  directRow(
    'fleet',
    'renewal-authorities-kept',
    'a device is kept on a list of authorities that its region replaced',
    'authorities-invalid',
    async () => {
      const { fleetCa } = await renewed({});
      const stays = (sha256: string | null): Result<void> =>
        wantsOtherAuthorities({ ...(objects.assignment as Assignment), authoritiesSha256: sha256 }, fleetCa)
          ? refuse('authorities-invalid', 'the region names others')
          : ok();
      const unnamed = stays(null);
      return {
        honest: unnamed.ok ? stays(authoritiesSha256([fleetCa])) : unnamed,
        forged: stays('a'.repeat(64)),
      };
    },
  ),
];

/** The region's root after its director's and its time's keys were stolen and replaced. */
function replaced(): RegionRoot {
  const spec = (name: string) => ({ keys: [signerNamed(name).publicKey], threshold: 1 });
  const roles = { director: spec('director-2'), time: spec('time-2'), ack: spec('ack') };
  return unwrap(
    parseRegionRoot(
      makeRegionRoot({
        ...{ region, version: 2, expiresAtMs: nowMs + 300 * dayMs, signers: [signerNamed('region-1')] },
        roles: { ...roles, root: spec('region-1'), command: spec('command') },
      }),
    ),
  );
}

const keysOf = (name: string): string[] => [Buffer.from(signerNamed(name).publicKey).toString('hex')];
const far = nowMs + 10_000 * dayMs;
const floor = (key: string, atMs: number): ClockFloor => ({ role: 'director', keys: keysOf(key), atMs });

/** Whether what ends tomorrow is over by this clock. */
const endsTomorrow = (time: TrustedClock): Result<void> =>
  time.nowMs() < nowMs + dayMs ? ok() : refuse('assignment-expired', 'its time is over');

const clocked = (id: string, attack: string, push: (time: TrustedClock) => Promise<void>): AttackCase =>
  directRow('fleet', `clock-${id}`, attack, 'assignment-expired', async () => {
    const open = (root: RegionRoot): TrustedClock =>
      openTrustedClock({
        ...{ clock: { ...systemClock, wall: () => nowMs }, floors: [], root },
        save: async () => undefined,
      });
    const healed = open(trusted);
    await push(healed);
    await healed.follow(replaced());
    // What it says afterwards moves nothing either.
    await healed.proven(floor('director', far));
    const genuine = open(replaced());
    await genuine.proven(floor('director-2', far));
    return { honest: endsTomorrow(healed), forged: endsTomorrow(genuine) };
  });

const clocks: AttackCase[] = [
  clocked(
    'stolen-director',
    'a stolen director pushed the time far ahead and was replaced; what its successor proves is believed',
    (time) => time.proven(floor('director', far)),
  ),
  clocked(
    'stolen-time',
    'a stolen time key pushed the time far ahead and was replaced; what was proven since is believed',
    (time) => time.answered({ timeMs: far, askedMonoMs: systemClock.mono(), keys: keysOf('time') }),
  ),
];

export const renewalAttacks: readonly AttackCase[] = [...renewals, ...clocks];
