// Why: when several regions are at rest: every one has the catalogue of the one that signs, all of its releases with their
// bytes and none that it bars, and the same list of regions. Trusts: the places as committed. Must never: ask a region how it is.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { parseTargets } from '../../shared/trust/tuf/metadata.ts';
import type { RegionsWorld, SimRegion } from '../region-world/regions.ts';

const storeFile = 'registry.sqlite';

interface Holding {
  root: string;
  snapshot: string;
  targets: string;
  releases: string[];
  /** Releases that a publisher took back, or put below a floor, as far as this region knows. */
  barred: Set<string>;
  /** A release that may be installed here and that the catalogue here bars. */
  notBarred: string | null;
  /** Manifests of releases that are still to come. */
  pending: string[];
  list: string;
}

const digestOf = (db: SqlTx, role: string): string => {
  const row = db.get<{ bytes: Uint8Array }>(
    'SELECT bytes FROM metadata_files JOIN metadata_roles ON name = file WHERE role = ?',
    role,
  );
  return row === undefined ? 'none' : sha256Hex(row.bytes);
};

function notBarred(db: SqlTx): string | null {
  const shown = db.all<{ id: string; namespace: string; name: string; counter: number }>(
    `SELECT release_id AS id, namespace, name, counter FROM releases
     WHERE admitted = 1 AND withdrawn = 0 AND below_floor = 0 ORDER BY id`,
  );
  for (const namespace of new Set(shown.map((one) => one.namespace))) {
    const file = db.get<{ bytes: Uint8Array }>(
      'SELECT bytes FROM metadata_files JOIN metadata_roles ON name = file WHERE role = ?',
      `ns/${namespace}`,
    );
    const targets = file === undefined ? null : parseTargets(new Uint8Array(file.bytes));
    if (targets?.ok !== true) continue;
    const { floors, withdrawn } = targets.value;
    const barred = shown.find(
      (one) =>
        one.namespace === namespace &&
        (one.counter < (floors.get(one.name) ?? 0) || withdrawn.get(one.name)?.has(one.counter) === true),
    );
    if (barred !== undefined) return barred.id;
  }
  return null;
}

function holdingOf(region: SimRegion): Holding | null {
  return region.place.look(storeFile, (db) => ({
    root: digestOf(db, 'root'),
    snapshot: digestOf(db, 'snapshot'),
    targets: digestOf(db, 'targets'),
    releases: db
      .all<{ line: string }>(
        `SELECT release_id || ' ' || manifest_sha256 AS line FROM releases
         WHERE admitted = 1 AND withdrawn = 0 AND below_floor = 0 ORDER BY line`,
      )
      .map(({ line }) => line),
    barred: new Set(
      db
        .all<{ line: string }>(
          `SELECT release_id || ' ' || manifest_sha256 AS line FROM releases
           WHERE withdrawn = 1 OR below_floor = 1`,
        )
        .map(({ line }) => line),
    ),
    notBarred: notBarred(db),
    pending: db
      .all<{ sha256: string }>('SELECT manifest_sha256 AS sha256 FROM mirror_releases')
      .map(({ sha256 }) => sha256),
    list: (() => {
      const row = db.get<{ envelope: Uint8Array }>('SELECT envelope FROM region_list');
      return row === undefined ? 'none' : sha256Hex(row.envelope);
    })(),
  }));
}

/** Why they do not agree yet, in words; null where they do. */
export function regionDisagreement(all: RegionsWorld, expected: number): string | null {
  const { regions, publisher } = all;
  if (regions.length < expected) return `${expected - regions.length} regions never joined`;
  const alive = regions.filter((one) => !one.lost);
  const holdings: [SimRegion, Holding][] = [];
  for (const region of alive) {
    if (region.node.up() === null) return `${region.name} is down`;
    const holding = holdingOf(region);
    if (holding === null) return `${region.name} has no store`;
    holdings.push([region, holding]);
  }
  const isSomewhere = (manifestSha256: string): boolean =>
    (publisher.ofManifest(manifestSha256)?.digests ?? []).every((digest) =>
      alive.some((region) => region.place.files.peek(`blobs/${digest}`) !== null),
    );
  // What a home took back just before it was handed over stays barred where that is known, and nowhere else.
  const shownBy = ({ releases }: Holding): string =>
    releases.filter((line) => !holdings.some(([, other]) => other.barred.has(line))).join();
  const [first] = holdings;
  if (first === undefined) return null;
  for (const [region, holding] of holdings) {
    for (const what of ['root', 'snapshot', 'targets', 'list'] as const) {
      if (holding[what] !== first[1][what]) return `${region.name} has another ${what} than ${first[0].name}`;
    }
    if (holding.notBarred !== null)
      return `${region.name} shows ${holding.notBarred}, which its own catalogue bars`;
    // What a lost home had signed and nobody had fetched is gone, unless its publisher brings it again.
    const missing = holding.pending.filter((sha256) => isSomewhere(sha256));
    if (missing.length > 0) return `${region.name} still lacks ${missing.length} releases`;
    if (shownBy(holding) !== shownBy(first[1]))
      return `${region.name} shows [${holding.releases.length}], ${first[0].name} [${first[1].releases.length}]`;
    for (const line of holding.releases) {
      const release = publisher.ofManifest(line.slice(line.indexOf(' ') + 1));
      if (release === undefined) return `${region.name} shows ${line}, which nobody signed`;
      for (const digest of release.digests) {
        const bytes = region.place.files.peek(`blobs/${digest}`);
        if (bytes === null || sha256Hex(bytes) !== digest) return `${region.name} lacks ${digest} of ${line}`;
      }
    }
  }
  return null;
}
