// Why: which regions there are: the signed list, invitations, and joining as the home region sees it.
// Trusts: the catalogue's root for who is home. Must never: give one name to two keys, or a name that was used to another.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { DoorPeer } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { followRegionList, openRegionList, signRegionList } from '../../shared/trust/region-list.ts';
import { parseRootFile } from '../../shared/trust/tuf/repository.ts';
import { encodeMessage, envelopeSchema, parseMessage } from '../../shared/wire/messages.ts';
import type { Invitation, JoinRequest, RegionEntry, RegionList } from '../../shared/wire/regions.ts';
import type { RegistryCore } from '../core.ts';
import type { RoleFiles } from '../signing/role-files.ts';
import type { RegistryDb } from '../store/open.ts';

export interface OwnDoor {
  /** Under which others reach it; null: it is closed. */
  url(): string | null;
  /** Hex. */
  publicKey: string;
}

export interface Members {
  list(): Promise<RegionList | null>;
  listIn(db: RegistryDb): RegionList | null;
  /** Exact bytes of the list in force; null where this registry is alone. */
  envelope(): Promise<Uint8Array | null>;
  /** The region whose door has this key; null for a stranger. */
  byKey(publicKey: string): Promise<RegionEntry | null>;
  /** Every other region. */
  peers(): Promise<RegionEntry[]>;
  /** Refusals: `not-home`, `region-door-closed`, `region-exists`. */
  invite(wanted: { region: string; createdBy: string; ttlMs: number }): Promise<Result<Invitation>>;
  /**
   * Takes a region in, once for each invitation; the same key again gets the same answer. Refusals: `not-home`,
   * `invitation-invalid`, `region-exists`, `metadata-…` of its root.
   */
  join(request: JoinRequest, publicKey: string): Promise<Result<{ list: Uint8Array; roots: Uint8Array[] }>>;
  /** Takes another list. Refusals: those of shared/trust/region-list.ts. */
  take(bytes: Uint8Array): Promise<Result<'same' | 'taken'>>;
  /** At home: signs the list again where it does not say what is so: who is home, and where this door is. */
  refreshOwn(): Promise<void>;
  /** A region says that its door moved. Refusal: `not-home`. */
  moved(region: string, url: string): Promise<Result<void>>;
  /** Takes a region out; its name is never used again. Refusals: `not-home`, `region-unknown`, `conflict` (itself). */
  remove(region: string): Promise<Result<void>>;
  invitations(): Promise<{ region: string; expiresAtMs: number; usedAtMs: number | null }[]>;
}

export function readList(envelope: Uint8Array, root: Uint8Array): Result<RegionList> {
  const parsed = parseMessage(envelopeSchema, envelope);
  if (!parsed.ok) return refuse('region-list-invalid', parsed.refusal.detail);
  return openRegionList(parsed.value, unwrap(parseRootFile(root)));
}

/** Of the list in force; it was checked when it was taken, under the root of then. */
export function storedList(envelope: Uint8Array): RegionList {
  const { payload } = unwrap(parseMessage(envelopeSchema, envelope));
  return JSON.parse(Buffer.from(payload, 'base64').toString('utf8'));
}

export function saveListIn(
  db: RegistryDb,
  qb: RegistryCore['store']['qb'],
  list: RegionList,
  envelope: Uint8Array,
  nowMs: number,
): void {
  const row = { version: list.version, envelope, taken_at_ms: nowMs };
  db.run(
    qb
      .insertInto('region_list')
      .values({ id: 1, ...row })
      .onConflict((conflict) => conflict.column('id').doUpdateSet(row)),
  );
}

export function createMembers(core: RegistryCore, door: OwnDoor): Members {
  const { store, repository, keyring, region: self, clock, entropy, log } = core;
  const { qb } = store;

  const rowIn = (db: RegistryDb) => db.first(qb.selectFrom('region_list').select(['version', 'envelope']));

  let cached: { version: number; bytes: Uint8Array; list: RegionList } | null = null;
  function listIn(db: RegistryDb): RegionList | null {
    const row = rowIn(db);
    if (row === undefined) return null;
    if (cached === null || Buffer.compare(cached.bytes, row.envelope) !== 0)
      cached = { version: row.version, bytes: row.envelope, list: storedList(row.envelope) };
    return cached.list;
  }

  function signIn(db: RegistryDb, list: RegionList): void {
    const envelope = encodeMessage(signRegionList(list, keyring.signer('snapshot')));
    saveListIn(db, qb, list, envelope, clock.wall());
  }

  function ownEntry(db: RegistryDb, files: RoleFiles, url: string, before?: RegionEntry): RegionEntry {
    return {
      region: self,
      url,
      publicKey: door.publicKey,
      regionRootSha256: before?.regionRootSha256 ?? sha256Hex(files.expect(db, 'region/root').bytes),
      joinedAtMs: before?.joinedAtMs ?? clock.wall(),
    };
  }

  /** The list in force, or the first one: this region alone. */
  function ownListIn(db: RegistryDb, files: RoleFiles, url: string): RegionList {
    return (
      listIn(db) ?? {
        schemaVersion: 1,
        version: 1,
        home: self,
        issuedAtMs: clock.wall(),
        regions: [ownEntry(db, files, url)],
        removed: [],
      }
    );
  }

  const next = (list: RegionList, change: Partial<RegionList>): RegionList => ({
    ...list,
    ...change,
    home: self,
    version: list.version + 1,
    issuedAtMs: clock.wall(),
  });

  /** Every root that the catalogue had: the new region finds the one of its invitation among them. */
  function catalogueRoots(db: RegistryDb, files: RoleFiles): Uint8Array[] {
    const last = files.expect(db, 'root').version;
    return Array.from({ length: last }, (_, at) => files.read(db, `${at + 1}.root.json`)).flatMap((bytes) =>
      bytes === null ? [] : [new Uint8Array(bytes)],
    );
  }

  const changing = <T>(work: (db: RegistryDb, files: RoleFiles) => T): Promise<T> =>
    repository.withFiles('regions', work);

  return {
    listIn,
    list: () => store.tx(listIn),
    envelope: () => store.tx((db) => rowIn(db)?.envelope ?? null),
    byKey: (publicKey) =>
      store.tx((db) => listIn(db)?.regions.find((one) => one.publicKey === publicKey) ?? null),
    peers: () => store.tx((db) => listIn(db)?.regions.filter((one) => one.region !== self) ?? []),

    invite: ({ region, createdBy, ttlMs }) =>
      changing((db, files) => {
        if (!files.isHome(db)) return refuse('not-home', 'the home region invites regions');
        const url = door.url();
        if (url === null) return refuse('region-door-closed', 'other regions could not reach this one');
        const list = ownListIn(db, files, url);
        const taken = list.removed.includes(region) || list.regions.some((one) => one.region === region);
        if (taken) return refuse('region-exists', `there is or was a region ${region}`);
        if (rowIn(db) === undefined) signIn(db, list);
        const secret = Buffer.from(entropy.bytes(32)).toString('hex');
        const expiresAtMs = clock.wall() + ttlMs;
        const row = {
          secret_sha256: sha256Hex(Buffer.from(secret, 'hex')),
          created_by: createdBy,
          created_at_ms: clock.wall(),
          expires_at_ms: expiresAtMs,
          used_by: null,
          used_at_ms: null,
        };
        db.run(
          qb
            .insertInto('region_invitations')
            .values({ region, ...row })
            // Who lost the file asks for another; the first one is worth nothing then.
            .onConflict((conflict) => conflict.column('region').doUpdateSet(row)),
        );
        return ok({
          schemaVersion: 1 as const,
          kind: 'lepton-region-invitation' as const,
          region,
          home: { region: self, url, publicKey: door.publicKey },
          secret,
          catalogueRootSha256: sha256Hex(files.expect(db, 'root').bytes),
          expiresAtMs,
        });
      }),

    async join(request, publicKey) {
      const root = parseRegionRoot(new Uint8Array(Buffer.from(request.regionRoot, 'base64')));
      if (!root.ok) return root;
      if (root.value.region !== request.region)
        return refuse('invitation-invalid', 'its region root is of another region');
      return changing((db, files) => {
        if (!files.isHome(db)) return refuse('not-home', 'regions join at the home region');
        const invitation = db.first(
          qb.selectFrom('region_invitations').selectAll().where('region', '=', request.region),
        );
        const secret = sha256Hex(Buffer.from(request.secret, 'hex'));
        if (invitation === undefined || invitation.secret_sha256 !== secret)
          return refuse('invitation-invalid', 'there is no such invitation');
        if (invitation.used_by !== null && invitation.used_by !== publicKey)
          return refuse('invitation-invalid', 'it was used by another registry');
        if (invitation.used_by === null && invitation.expires_at_ms <= clock.wall())
          return refuse('invitation-invalid', 'it has expired');
        const list = listIn(db);
        const row = rowIn(db);
        if (list === null || row === undefined) return refuse('invitation-invalid', 'there are no regions');
        const roots = catalogueRoots(db, files);
        // What was used to join once does not let in again a region that was taken out.
        if (list.removed.includes(request.region))
          return refuse('region-exists', `the region ${request.region} was taken out`);
        const before = list.regions.find((one) => one.region === request.region);
        // A crash after the answer: the same registry asks again.
        if (before !== undefined && invitation.used_by === publicKey)
          return ok({ list: new Uint8Array(row.envelope), roots });
        if (before !== undefined || list.regions.some((one) => one.publicKey === publicKey))
          return refuse('region-exists', `there is a region ${request.region}, or one with this key`);
        const nowMs = clock.wall();
        db.run(
          qb
            .updateTable('region_invitations')
            .set({ used_by: publicKey, used_at_ms: nowMs })
            .where('region', '=', request.region),
        );
        const entry: RegionEntry = {
          region: request.region,
          url: request.url,
          publicKey,
          regionRootSha256: sha256Hex(root.value.bytes),
          joinedAtMs: nowMs,
        };
        signIn(db, next(list, { regions: [...list.regions, entry] }));
        log.emit('info', 'regions.member.joined', { region: request.region, url: request.url });
        return ok({ list: new Uint8Array(rowIn(db)?.envelope ?? row.envelope), roots });
      });
    },

    async take(bytes) {
      return changing((db, files) => {
        const row = rowIn(db);
        if (row !== undefined && Buffer.compare(row.envelope, bytes) === 0) return ok('same' as const);
        const root = new Uint8Array(files.expect(db, 'root').bytes);
        const read = readList(bytes, root);
        if (!read.ok) return read;
        const held = listIn(db);
        // Lists of two homes cannot be compared by their numbers, only by whose keys the root names now.
        const sameHome = row !== undefined && readList(new Uint8Array(row.envelope), root).ok;
        const followed = followRegionList(held, read.value, sameHome);
        if (!followed.ok) return followed;
        if (sameHome && held !== null && followed.value.version === held.version) return ok('same' as const);
        saveListIn(db, qb, followed.value, bytes, clock.wall());
        const { version, home, regions } = followed.value;
        log.emit('info', 'regions.list.taken', { version, home, regions: regions.length });
        return ok('taken' as const);
      });
    },

    refreshOwn: () =>
      changing((db, files) => {
        const list = listIn(db);
        const url = door.url();
        if (list === null || url === null || !files.isHome(db)) return;
        const entry = list.regions.find((one) => one.region === self);
        if (list.home === self && entry?.url === url && entry.publicKey === door.publicKey) return;
        const others = list.regions.filter((one) => one.region !== self);
        signIn(db, next(list, { regions: [...others, ownEntry(db, files, url, entry)] }));
      }),

    moved: (region, url) =>
      changing((db, files) => {
        if (!files.isHome(db)) return refuse('not-home', 'the home region keeps the list');
        const list = listIn(db);
        if (list?.regions.some((one) => one.region === region && one.url !== url) === true) {
          const regions = list.regions.map((one) => (one.region === region ? { ...one, url } : one));
          signIn(db, next(list, { regions }));
        }
        return ok();
      }),

    remove: (region) =>
      changing((db, files) => {
        if (!files.isHome(db)) return refuse('not-home', 'the home region keeps the list');
        if (region === self) return refuse('conflict', 'the home region cannot take itself out');
        const list = listIn(db);
        if (list === null || !list.regions.some((one) => one.region === region))
          return refuse('region-unknown', `there is no region ${region}`);
        const regions = list.regions.filter((one) => one.region !== region);
        signIn(db, next(list, { regions, removed: [...list.removed, region] }));
        return ok();
      }),

    invitations: () =>
      store.tx((db) =>
        db
          .all(
            qb
              .selectFrom('region_invitations')
              .select(['region', 'expires_at_ms', 'used_at_ms'])
              .orderBy('region'),
          )
          .map((row) => ({
            region: row.region,
            expiresAtMs: row.expires_at_ms,
            usedAtMs: row.used_at_ms,
          })),
      ),
  };
}

/** Where a region is reached: as the list says, unless the operator of this one said otherwise. */
export function peerOf(entry: RegionEntry, overrides: ReadonlyMap<string, string>): DoorPeer {
  return { url: overrides.get(entry.region) ?? entry.url, publicKey: entry.publicKey };
}
