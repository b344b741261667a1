// Why: a region with its own keys, roots and audit record, without fleet or API, for tests of the chain and of its heads.
// Trusts: nothing. Must never: make an entry in another way than the registry does, unless it says that it forges.

import { join } from 'node:path';
import type { NewAuditEntry } from '../../registry/audit/audit.ts';
import { openAudit, type RegionAudit } from '../../registry/audit/open-audit.ts';
import { incomingAuditHeads, outgoingAuditHeads, type RegionKeyOf } from '../../registry/audit/peer-heads.ts';
import { createFleetEvents, type FleetEvents } from '../../registry/fleet/events.ts';
import type { IncomingStream, OutgoingStream } from '../../registry/regions/streams.ts';
import { openKeyring } from '../../registry/signing/keys.ts';
import { openRepository } from '../../registry/signing/repository.ts';
import { openRegistryStore, type RegistryStore } from '../../registry/store/open.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { auditEntrySha256, noEntrySha256 } from '../../shared/trust/audit.ts';
import { parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import type { AuditEntry } from '../../shared/wire/audit.ts';
import {
  countedEntropy,
  type Ending,
  heardLog,
  type TurnedClock,
  temporaryFolder,
  turnedClock,
} from '../registry-core/support.ts';

export interface AuditedRegion {
  name: string;
  store: RegistryStore;
  audit: RegionAudit;
  events: FleetEvents;
  root: RegionRoot;
  /** Its `ack` key. */
  signer: Signer;
  outgoing: OutgoingStream;
  /** Takes the heads of others, whose keys `keysOf` names. */
  incoming(keysOf: RegionKeyOf): IncomingStream;
  /** Some ordinary entries. */
  work(count: number): Promise<void>;
  exported(): Promise<string[]>;
}

export const entry = (subject: string, other: Partial<NewAuditEntry> = {}): NewAuditEntry => ({
  ...{ actor: 'user:ann', via: 'api', action: 'devices.revoke', subject, reason: null },
  ...{ outcome: 'done', code: null, rule: null, address: '127.0.0.1', detail: { status: 200 } },
  ...other,
});

export async function auditedRegion(
  t: Ending,
  name: string,
  clock: TurnedClock = turnedClock(),
): Promise<AuditedRegion> {
  const store = await openRegistryStore(':memory:');
  t.after(() => store.close());
  const base = { region: name, clock, log: heardLog(), store };
  const keyring = await openKeyring({
    ...{ ...base, disk: openDisk(join(temporaryFolder(t), 'keys')), mayCreate: true },
    ...{ hosts: ['localhost'], entropy: countedEntropy(`region ${name}`) },
  });
  const repository = await openRepository({ ...base, keyring });
  const audit = await openAudit({ ...base, repository, keyring });
  const events = createFleetEvents(base);
  let made = 0;
  return {
    name,
    store,
    audit,
    events,
    root: unwrap(parseRegionRoot(await repository.regionRoot())),
    signer: keyring.signer('ack'),
    outgoing: outgoingAuditHeads(store),
    incoming: (regionKeyOf) => incomingAuditHeads({ store, audit, events, regionKeyOf, clock }),
    async work(count) {
      for (let at = 0; at < count; at += 1) {
        made += 1;
        clock.advance(1_000);
        await audit.append(entry(`device-${made}`, made % 3 === 0 ? { reason: 'lost' } : {}));
      }
    },
    async exported() {
      const chunks: Uint8Array[] = [];
      for await (const chunk of (await audit.exported()).lines) chunks.push(chunk);
      return Buffer.concat(chunks).toString().split('\n').slice(0, -1);
    },
  };
}

/** Every head of one region, taken by another. */
export async function pull(from: AuditedRegion, by: AuditedRegion): Promise<void> {
  const items = await from.store.tx((db) => from.outgoing.readIn(db, by.name, 0, 1_000));
  const stream = by.incoming((region) => (region === from.name ? [from.root.roles.ack] : null));
  await by.store.tx((db) => stream.takeIn(db, from.name, items));
}

/** The entries with every digest made anew, as a region could do that wants to hide something. */
export function rechained(entries: readonly AuditEntry[]): AuditEntry[] {
  let previousSha256 = noEntrySha256;
  return entries.map(({ entrySha256: _before, ...body }, at) => {
    const next = { ...body, id: at + 1, previousSha256 };
    previousSha256 = auditEntrySha256(next);
    return { ...next, entrySha256: previousSha256 };
  });
}

/** Puts other entries into a region's database and forgets its heads: it will sign the new record as its own. */
export async function rewrite(region: AuditedRegion, entries: readonly AuditEntry[]): Promise<void> {
  const { store } = region;
  const { qb } = store;
  await store.tx((db) => {
    db.run(qb.deleteFrom('audit_entries'));
    db.run(qb.deleteFrom('audit_heads'));
    for (const one of entries) {
      const { id, region: of, actor, via, action, subject, reason, outcome, code, rule, address } = one;
      db.run(
        qb.insertInto('audit_entries').values({
          ...{ id, region: of, actor, via, action, subject, reason, outcome, code, rule, address },
          at_ms: one.atMs,
          detail: JSON.stringify(one.detail),
          previous_sha256: one.previousSha256,
          entry_sha256: one.entrySha256,
        }),
      );
    }
  });
}
