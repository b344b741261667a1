// Why: brings the files of releases that the mirrored catalogue names, resumable and from any region that has them, and
// makes a release visible when all of it is here and was judged here.
// Trusts: digests that publishers signed. Must never: show a release before its files are durable and admitted, or one that
// its publisher took back while it came.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Disk } from '../../shared/kernel/ports.ts';
import { sha256Pattern } from '../../shared/kernel/releases.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import type { RegistryCore } from '../core.ts';
import { cardBytesMax } from '../policy/card-fields.ts';
import type { RegistryDb } from '../store/open.ts';
import type { MirrorReleaseRow } from '../store/region-tables.ts';
import type { RegionAsker } from './asking.ts';
import type { RegionLimits } from './limits.ts';
import { barredInCatalogue } from './mirror-barred.ts';

/** A region that may have files, with how it is asked. */
export interface Source {
  region: string;
  asker: Pick<RegionAsker, 'part'>;
}

export interface MirrorFiles {
  /** Works through what is wanted; resolves when there is nothing left that could be had now. */
  work(): Promise<void>;
  pending(): Promise<{ wanted: number; refused: { releaseId: string; code: string; detail: string }[] }>;
  stop(): void;
}

/** Whether this region takes a release. Refusal: the policy's, naming its rule. */
export type ReleaseJudge = (releaseId: string, manifest: Manifest) => Promise<Result<void>>;

/** No region could be asked: nothing is wrong with the release. */
const isLine = ({ code }: Refusal): boolean =>
  code === 'region-unreachable' ||
  code === 'mirror-incomplete' ||
  code === 'region-untrusted' ||
  code === 'region-answer-invalid' ||
  code === 'region-unknown' ||
  code === 'registry-not-ready' ||
  code === 'interrupted';

const partSuffix = '.part';

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

export function createMirrorFiles(
  core: RegistryCore,
  parts: {
    /** Rooted at the folder of half-fetched files. */
    disk: Disk;
    limits: RegionLimits;
    sources(): Promise<Source[]>;
    judge: ReleaseJudge;
  },
): MirrorFiles {
  const { store, blobs, releases, clock, log } = core;
  const { disk, limits } = parts;
  const { qb } = store;
  let stopped = false;
  let working: Promise<void> | null = null;
  let again = false;
  /** True at a start: another life may have left some. */
  let mayBeLeft = true;

  const hasNothingWanted = (): Promise<boolean> =>
    store.tx((db) => db.first(qb.selectFrom('mirror_releases').select('release_id').limit(1)) === undefined);

  async function* readPart(path: string, bytes: number): AsyncGenerator<Uint8Array> {
    for (let offset = 0; offset < bytes; ) {
      const part = await disk.readRange(path, offset, limits.partBytes);
      if (part === null || part.length === 0) return;
      offset += part.length;
      yield part;
    }
  }

  /** Bytes `[offset, …)` from the first region that has them. */
  async function partOf(sources: Source[], sha256: string, offset: number, length: number) {
    let last: Result<Uint8Array> = refuse('region-unreachable', 'no other region is known');
    for (const source of [...sources]) {
      if (stopped) return refuse('interrupted', 'the registry stops');
      last = await source.asker.part(sha256, offset, length);
      if (last.ok && last.value.length > 0 && last.value.length <= length) return last;
      if (last.ok) last = refuse('region-answer-invalid', `${source.region} answered with no bytes`);
      // What has failed once is asked last from now on.
      sources.splice(sources.indexOf(source), 1);
      sources.push(source);
    }
    return last;
  }

  /** Small files go through memory, large ones through a file that a restart goes on with. */
  async function fetchFile(sources: Source[], sha256: string, bytes: number): Promise<Result<void>> {
    if ((await blobs.size(sha256)) !== null) return ok();
    if (!sha256Pattern.test(sha256)) return refuse('manifest-malformed', 'a digest that is none');
    if (bytes <= limits.partBytes) {
      let last: Result<unknown> = refuse('region-unreachable', 'no other region is known');
      // One that gives other bytes does not keep those away that others have.
      for (const source of sources) {
        const part = bytes === 0 ? ok(new Uint8Array()) : await partOf([source], sha256, 0, bytes);
        last = part.ok ? await blobs.put(sha256, once(part.value)) : part;
        if (last.ok) return ok();
      }
      return last.ok ? ok() : last;
    }
    const path = `${sha256}${partSuffix}`;
    mayBeLeft = true;
    let offset = (await disk.size(path)) ?? 0;
    // Whatever lies there may be torn; the digest over the whole decides, and then it begins anew.
    if (offset === 0 || offset > bytes) {
      await disk.create(path);
      offset = 0;
    }
    while (offset < bytes) {
      const length = Math.min(limits.partBytes, bytes - offset);
      const part = await partOf(sources, sha256, offset, length);
      if (!part.ok) return part;
      await disk.append(path, part.value);
      offset += part.value.length;
    }
    const put = await blobs.put(sha256, readPart(path, bytes));
    await disk.unlink(path);
    return put.ok ? ok() : put;
  }

  async function fetchAll(sources: Source[], manifest: Pick<Manifest, 'files'>): Promise<Result<void>> {
    const files = [...manifest.files];
    let failed: Result<void> = ok();
    const one = async (): Promise<void> => {
      for (let file = files.shift(); file !== undefined && failed.ok; file = files.shift()) {
        const fetched = await fetchFile([...sources], file.sha256, file.bytes);
        if (!fetched.ok) failed = fetched;
      }
    };
    await Promise.all(Array.from({ length: limits.filesAtOnce }, one));
    return failed;
  }

  /** While it came the catalogue may have changed, or this region have become the one whose publishers bar releases. */
  function isStillWanted(db: RegistryDb, row: MirrorReleaseRow): boolean {
    const gone = db.run(
      qb
        .deleteFrom('mirror_releases')
        .where('release_id', '=', row.release_id)
        .where('manifest_sha256', '=', row.manifest_sha256),
    );
    return gone.changes === 1 && barredInCatalogue(db, qb, row.release_id) === null;
  }

  async function take(row: MirrorReleaseRow, sources: Source[]): Promise<Result<void>> {
    const fetched = await fetchFile([...sources], row.manifest_sha256, row.manifest_bytes);
    if (!fetched.ok) return fetched;
    const manifest = await blobs.read(row.manifest_sha256);
    if (manifest === null || sha256Hex(manifest) !== row.manifest_sha256)
      return refuse('blob-missing', 'its manifest is gone');
    return releases.mirror({
      releaseId: row.release_id,
      manifest,
      counter: row.counter,
      requires: row.requires,
      signedBy: JSON.parse(row.signed_by),
      from: sources[0]?.region ?? 'unknown',
      ready: async (read) => {
        // The policy first, which reads the card: other bytes that may not be here are not fetched.
        const cards = read.files.filter(({ role, bytes }) => role === 'card' && bytes <= cardBytesMax);
        const readable = await fetchAll(sources, { files: cards });
        if (!readable.ok) return readable;
        const judged = await parts.judge(row.release_id, read);
        return judged.ok ? fetchAll(sources, read) : judged;
      },
      within: (db) => isStillWanted(db, row),
    });
  }

  async function note(row: MirrorReleaseRow, refusal: Refusal): Promise<void> {
    const { code, detail } = refusal;
    const isDamaged = code === 'blob-digest-mismatch';
    const state = isLine(refusal) || isDamaged ? 'wanted' : 'refused';
    if (state === 'refused' && (row.code !== code || row.detail !== detail))
      log.emit('warn', 'regions.release.refused', { releaseId: row.release_id, code, detail });
    const waitMs = isDamaged ? limits.damagedRetryMs : limits.refusedRetryMs;
    const retry_at_ms = isLine(refusal) ? 0 : clock.wall() + waitMs;
    await store.tx((db) =>
      db.run(
        qb
          .updateTable('mirror_releases')
          .set({ state, code, detail, retry_at_ms })
          .where('release_id', '=', row.release_id)
          // Its bytes may have been named anew meanwhile.
          .where('manifest_sha256', '=', row.manifest_sha256),
      ),
    );
  }

  /** Half of files that nothing wants any more. */
  async function sweep(): Promise<void> {
    for (const name of await disk.list('.')) if (name.endsWith(partSuffix)) await disk.unlink(name);
    mayBeLeft = false;
  }

  async function round(): Promise<void> {
    const due = await store.tx((db) =>
      db.all(
        qb
          .selectFrom('mirror_releases')
          .selectAll()
          .where('retry_at_ms', '<=', clock.wall())
          .orderBy('counter', 'desc')
          .orderBy('release_id'),
      ),
    );
    if (due.length === 0) {
      if (mayBeLeft && (await hasNothingWanted())) await sweep();
      return;
    }
    const sources = await parts.sources();
    for (const row of due) {
      if (stopped) return;
      const taken = await take(row, sources);
      if (taken.ok) continue;
      await note(row, taken.refusal);
      // No region answers: the others would fail as well, and the next look tries again.
      if (taken.refusal.code === 'region-unreachable') return;
    }
  }

  return {
    work() {
      if (working !== null) {
        again = true;
        return working;
      }
      const running = (async () => {
        do {
          again = false;
          await round();
        } while (again && !stopped);
      })();
      working = running.finally(() => {
        working = null;
      });
      return working;
    },

    pending: () =>
      store.tx((db) => {
        const rows = db.all(
          qb.selectFrom('mirror_releases').select(['release_id', 'state', 'code', 'detail']),
        );
        const refused = rows
          .filter((row) => row.state === 'refused')
          .map((row) => ({ releaseId: row.release_id, code: row.code ?? '', detail: row.detail ?? '' }));
        return { wanted: rows.length - refused.length, refused };
      }),

    stop() {
      stopped = true;
    },
  };
}
