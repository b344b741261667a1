// Why: the whole audit record in one file that can be checked anywhere without asking this region again.
// Trusts: the store. Must never: hold all of it in memory, or end without a signature over every line.

import { sha256Stream } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { signAuditClosing } from '../../shared/trust/audit.ts';
import type { AuditLine } from '../../shared/wire/audit.ts';
import type { RegistryStore } from '../store/open.ts';
import type { SignedAuditHead } from './heads.ts';
import { auditLimits } from './limits.ts';
import type { HeldPeerHeads } from './peer-heads.ts';
import { entryOf } from './record.ts';

const encoder = new TextEncoder();
const bytesOf = (lines: readonly AuditLine[]): Uint8Array =>
  encoder.encode(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));

/**
 * The lines of an export that ends with the entry that `newest` names: a header with every root of the region, the entries,
 * that head, the heads of other regions that are held here, and the signature over all of it. One chunk is some lines.
 */
export async function* auditExportLines(parts: {
  store: RegistryStore;
  region: string;
  signer: Signer;
  newest: SignedAuditHead;
  rootSha256: string;
  /** Of every root of the region, from the first on. */
  roots: readonly Uint8Array[];
  peerHeads: HeldPeerHeads;
}): AsyncGenerator<Uint8Array> {
  const { store, region, newest, rootSha256, roots, peerHeads } = parts;
  const { qb } = store;
  const digest = sha256Stream();
  let count = 0;
  const written = (lines: readonly AuditLine[]): Uint8Array => {
    const bytes = bytesOf(lines);
    digest.update(bytes);
    count += lines.length;
    return bytes;
  };

  const inBase64 = roots.map((bytes) => Buffer.from(bytes).toString('base64'));
  yield written([{ header: { schemaVersion: 1, region, rootSha256, roots: inBase64 } }]);
  for (let after = 0; after < newest.head.entries; ) {
    const page = qb
      .selectFrom('audit_entries')
      .selectAll()
      .where('id', '>', after)
      .where('id', '<=', newest.head.entries)
      .orderBy('id')
      .limit(auditLimits.exportEntries);
    const rows = await store.tx((db) => db.all(page));
    const last = rows.at(-1);
    // Entries that are not there show themselves when the file is checked.
    if (last === undefined) break;
    after = last.id;
    yield written(rows.map((row) => ({ entry: entryOf(row) })));
  }
  yield written([{ head: newest.envelope }]);
  for await (const heads of peerHeads.pages()) yield written(heads.map((peerHead) => ({ peerHead })));
  const closing = {
    schemaVersion: 1,
    region,
    lines: count,
    linesSha256: digest.hex(),
    atMs: newest.head.atMs,
  } as const;
  yield bytesOf([{ closing: signAuditClosing(closing, parts.signer) }]);
}
