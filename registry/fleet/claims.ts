// Why: a claim lets a device enrol (DESIGN 3): a short-lived certificate, a number of uses, labels, both roots.
// Trusts: the operator who makes it and carries the file. Must never: keep or log the claim's private key.

import { keyPairFromSeed } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { issueClaimCertificate } from '../../shared/host/certificates.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import type { Labels } from '../../shared/wire/messages.ts';
import type { RegistryCore } from '../core.ts';
import { toColumn, toNullableColumn } from './columns.ts';
import { fleetLimits } from './limits.ts';

export interface Claims {
  /** Makes a claim of `uses` devices, good for `ttlMs`. The answer holds the private key and is not kept. */
  create(claim: {
    labels: Labels;
    uses: number;
    ttlMs: number;
    createdBy: string;
    /** The only devices that it lets in, each once. */
    deviceIds?: readonly string[] | undefined;
  }): Promise<ClaimFile>;
}

export function createClaims(core: RegistryCore): Claims {
  const { store, repository, authorities, clock, entropy, log, region, addresses } = core;
  const { qb } = store;

  return {
    async create({ labels, uses: wanted, ttlMs, createdBy, deviceIds: given }) {
      const deviceIds = given === undefined ? null : [...new Set(given)];
      const uses = deviceIds?.length ?? wanted;
      const nowMs = clock.wall();
      const claimId = Buffer.from(entropy.bytes(12)).toString('hex');
      const keys = keyPairFromSeed(entropy.bytes(32));
      const expiresAtMs = nowMs + ttlMs;
      const [authority] = authorities.present();
      const certificate = await issueClaimCertificate({
        ca: authority,
        claimId,
        publicKey: keys.publicKey,
        serial: entropy.bytes(16),
        notBeforeMs: nowMs - fleetLimits.certificateBackdateMs,
        notAfterMs: expiresAtMs,
      });
      const roots = await repository.roots();
      const file: ClaimFile = {
        schemaVersion: 1,
        kind: 'lepton-claim',
        claimId,
        region,
        brokerUrl: addresses.mqtt,
        fleetCa: authority.certificatePem,
        certificate,
        privateKey: pkcs8PemFromSeed(keys.seed),
        labels,
        uses,
        expiresAtMs,
        catalogueRootSha256: roots.catalogue.sha256,
        regionRootSha256: roots.region.sha256,
        ...(deviceIds === null ? {} : { deviceIds }),
      };
      await store.tx((db) =>
        db.run(
          qb.insertInto('claims').values({
            claim_id: claimId,
            public_key: keys.publicKey,
            labels: toColumn(labels),
            uses,
            used: 0,
            created_by: createdBy,
            created_at_ms: nowMs,
            expires_at_ms: expiresAtMs,
            catalogue_root_version: roots.catalogue.version,
            region_root_version: roots.region.version,
            authority: authority.number,
            device_ids: toNullableColumn(deviceIds),
          }),
        ),
      );
      log.emit('info', 'claim.created', { claimId, uses, expiresAtMs, createdBy });
      return file;
    },
  };
}
