// Why: the audit record as the registry holds it: entries, signed heads, exports, opened together at start.
// Trusts: the repository for the region's roots, the keyring for its `ack` key. Must never: begin before the region has a root.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import type { Keyring } from '../signing/keys.ts';
import type { CatalogueRepository } from '../signing/repository.ts';
import type { RegistryStore } from '../store/open.ts';
import { auditExportLines } from './export.ts';
import { type AuditHeads, createAuditHeads } from './heads.ts';
import { heldPeerHeads } from './peer-heads.ts';
import { type AuditRecord, openAuditRecord } from './record.ts';

export interface RegionAudit extends AuditRecord {
  heads: AuditHeads;
  /** Signs a head for all there is and gives the lines of an export up to it; how many entries that are. */
  exported(): Promise<{ entries: number; lines: AsyncGenerator<Uint8Array> }>;
}

export async function openAudit(parts: {
  store: RegistryStore;
  region: string;
  repository: Pick<CatalogueRepository, 'file'>;
  keyring: Pick<Keyring, 'signer'>;
  clock: Clock;
}): Promise<RegionAudit> {
  const { store, region, repository, keyring, clock } = parts;
  const rootFile = (version: number): Promise<Uint8Array | null> =>
    repository.file(`region/${version}.root.json`);
  const first = await rootFile(1);
  if (first === null) throw new FleetError('state-corrupt', 'the first root of the region is not there');
  const rootSha256 = sha256Hex(first);
  // The key that says what the region has stored and erased: it speaks for what is kept, and a rotation replaces it.
  const signer = keyring.signer('ack');
  const record = await openAuditRecord({ store, region, rootSha256, clock });
  const heads = createAuditHeads({ store, region, signer, clock });
  const peerHeads = heldPeerHeads(store);
  return {
    ...record,
    heads,
    async exported() {
      const newest = await heads.sign();
      const roots: Uint8Array[] = [];
      for (let root: Uint8Array | null = first; root !== null; root = await rootFile(roots.length + 1))
        roots.push(root);
      const lines = auditExportLines({ store, region, signer, newest, rootSha256, roots, peerHeads });
      return { entries: newest.head.entries, lines };
    },
  };
}
