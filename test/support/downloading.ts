// Why: devices that may download one file, at a real registry in this process: with certificates and rows as an enrolment
// and a rollout would leave them, and without the minutes that these would take for a hundred of them.
// Trusts: the registry's own parts. Must never: be used where enrolment or assignment is under test.

import { createDeviceCertificates } from '../../registry/fleet/certificates.ts';
import type { Registry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { hexOf, identityModel, once, preparePush, publisherKey } from '../registry-core/support.ts';

export interface DownloadingDevice {
  id: string;
  seed: string;
  cert: string;
  key: string;
  /** The authority by which it checks the broker, PEM. */
  authority: string;
}

/** A release with this file as its model card; the digest of the file. */
export async function releaseWith(registry: Registry, releaseId: string, file: Uint8Array): Promise<string> {
  const { repository, blobs, releases } = registry.parts;
  const publisher = publisherKey('acme');
  unwrap(await repository.delegate('acme', [hexOf(publisher)], 1));
  const model = identityModel(releaseId);
  const sha256 = sha256Hex(file);
  const files = [
    { path: 'model.onnx', role: 'model', sha256: sha256Hex(model), bytes: model.length },
    { path: 'card.bin', role: 'card', sha256, bytes: file.length },
  ];
  const push = preparePush({
    ...{ releaseId, model, current: null, counter: 1, signers: [publisher], manifest: { files } },
    expiresAtMs: registry.parts.clock.wall() + 30 * 86_400_000,
  });
  unwrap(await blobs.put(sha256Hex(model), once(model)));
  unwrap(await blobs.put(sha256, once(file)));
  unwrap(await releases.push(push));
  return sha256;
}

/** A device that is assigned the release, or none where that is null. */
export async function addDevice(registry: Registry, releaseId: string | null): Promise<DownloadingDevice> {
  const { parts } = registry;
  const { store, authorities, clock } = parts;
  const seed = systemEntropy.bytes(32);
  const publicKey = publicKeyOf(seed);
  const id = deviceIdOf(publicKey);
  const authority = authorities.inForce(1);
  if (authority === null) throw new Error('no authority');
  const certificates = createDeviceCertificates(parts);
  const issued = await certificates.issue({ deviceId: id, publicKey }, authority);
  const release = releaseId === null ? null : await parts.releases.find(releaseId);
  await store.tx((db) => {
    const nothing = { outbox: null, report_sha256: null, held: null, clock: null };
    const counters = { telemetry_epoch: 0, report_counter: 0, reported_epoch: 0, refusal_id_last: 0 };
    const reports = {
      report_boot: 0,
      report_boot_counter: 0,
      report_from_epoch: 0,
      report_anew: 0,
      attacks: 0,
    };
    db.run(
      store.qb.insertInto('devices').values({
        ...{ ...nothing, ...counters, ...reports, device_id: id, public_key: publicKey, status: 'active' },
        ...{ claim_id: 'test', labels: '{}', timezone: 'UTC', presence: 'unknown', presence_at_ms: 0 },
        ...{
          last_seen_ms: null,
          agent: '{}',
          verified_time_ms: 0,
          enrolled_at_ms: clock.wall(),
          authority: 1,
        },
        ...{ certificate_expires_at_ms: issued.expires_at_ms, status_at_ms: 0, report_session: '' },
      }),
    );
    certificates.keepIn(db, issued);
    if (release === null || releaseId === null) return;
    const { manifestSha256, manifestBytes, counter } = release;
    db.run(
      store.qb.insertInto('desired').values({
        ...{ device_id: id, as_name: 'big', release_id: releaseId, manifest_sha256: manifestSha256 },
        ...{ manifest_bytes: manifestBytes, counter, rollout_id: null, policy: '{}', requires: null },
      }),
    );
  });
  const key = pkcs8PemFromSeed(seed);
  return {
    id,
    seed: Buffer.from(seed).toString('hex'),
    cert: issued.certificate,
    key,
    authority: authority.certificatePem,
  };
}
