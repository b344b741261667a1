// Why: smaller ways to files are made here, one at a time, in the order of use: what a device waits for first, then what
// a new release may need. What is missing is found again from the tables, so that no queue has to survive a restart.
// Trusts: the encoder port, whose process may fail as it likes. Must never: let a failed encoding cost anything but
// itself, or encode for a release that nobody may install.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, DeltaEncoder, Log, Timer } from '../../shared/kernel/ports.ts';
import type { ReleaseFile } from '../../shared/kernel/releases.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { Blobs } from '../catalog/blobs.ts';
import type { ReleaseRecord, Releases } from '../catalog/releases.ts';
import type { FleetLimits } from '../fleet/limits.ts';
import type { RegistryStore } from '../store/open.ts';
import type { EncodingKey, Encodings } from './encodings.ts';
import { aloneOf, nameOf, type Pair, pairOf, pairsOf } from './pairs.ts';

export interface EncodingCounters {
  made: number;
  noSmaller: number;
  failed: number;
  /** Jobs that wait, with the one under way. */
  queued: number;
}

export interface Encoding {
  /** Looks up what is missing and begins. */
  start(): void;
  /**
   * A device that holds these asks for a file of the release. Whether something is being made for it now. `known`: bases
   * of which the outcome is known, as `Encodings.ways` gives them.
   */
  demand(
    release: ReleaseRecord,
    file: ReleaseFile,
    held: ReadonlySet<string>,
    known: ReadonlySet<string>,
  ): Promise<boolean>;
  counters(): EncodingCounters;
  /** Resolves when nothing waits and nothing is under way. */
  idle(): Promise<void>;
  /** Ends what is under way; what waits is found again at the next start. Idempotent. */
  stop(): Promise<void>;
}

interface Job extends Pair {
  releaseId: string;
}

type EncodingLimits = Pick<
  FleetLimits,
  | 'encodingReleasesBack'
  | 'encodingQueueMax'
  | 'encodingDemandMax'
  | 'encodingDemandPerAsk'
  | 'encodingTargetBytesMin'
  | 'encodingTargetBytesMax'
  | 'encodingRetryMs'
>;

/** Releases of one model in which a device's bases are looked for. */
const earlierMax = 64;

const keyOf = ({ target, bases }: Pair): EncodingKey => ({
  target: target.sha256,
  bases: bases.map(({ sha256 }) => sha256),
});

export function createEncoding(parts: {
  store: RegistryStore;
  releases: Releases;
  blobs: Pick<Blobs, 'has'>;
  encodings: Encodings;
  /** Null: this registry makes none. */
  encoder: DeltaEncoder | null;
  /** Where a blob lies, for the encoder's process. */
  pathOf(sha256: string): string;
  limits: EncodingLimits;
  clock: Clock;
  log: Log;
}): Encoding {
  const { store, releases, blobs, encodings, encoder, limits, clock, log } = parts;
  const { qb } = store;
  /** By name, in the order of coming. */
  const demanded = new Map<string, Job>();
  const wanted = new Map<string, Job>();
  const counters = { made: 0, noSmaller: 0, failed: 0 };
  let current: string | null = null;
  let working: Promise<void> | null = null;
  let scanning: Promise<void> | null = null;
  let overflowed = false;
  let retry: Timer | null = null;
  let stopped = false;

  const isWorth = ({ bytes }: ReleaseFile): boolean =>
    bytes > limits.encodingTargetBytesMin && bytes <= limits.encodingTargetBytesMax;

  // ---- what is to be made

  async function earlierThan(
    release: ReleaseRecord,
    count: number,
    below: boolean,
  ): Promise<ReleaseRecord[]> {
    const [model = ''] = release.releaseId.split('@');
    const [namespace = '', name = ''] = model.split('/');
    const all = qb
      .selectFrom('releases')
      .select('release_id')
      .where('namespace', '=', namespace)
      .where('name', '=', name)
      .where('release_id', '!=', release.releaseId)
      .orderBy('counter', 'desc')
      .limit(count);
    const rows = await store.tx((db) => db.all(below ? all.where('counter', '<', release.counter) : all));
    const found = await Promise.all(rows.map((row) => releases.find(row.release_id)));
    return found.filter((one) => one !== null);
  }

  async function want(releaseId: string): Promise<void> {
    const release = await releases.find(releaseId);
    if (release === null || release.barred !== null) return;
    const earlier = await earlierThan(release, limits.encodingReleasesBack, true);
    const filesOf = earlier.map((one) => one.manifest.files);
    for (const pair of pairsOf(release.manifest.files, filesOf, isWorth)) {
      if (!(await isOpen(pair, false))) continue;
      const name = nameOf(pair);
      if (demanded.has(name) || name === current) continue;
      wanted.delete(name);
      wanted.set(name, { ...pair, releaseId });
      for (const oldest of wanted.keys()) {
        if (wanted.size <= limits.encodingQueueMax) break;
        wanted.delete(oldest);
        overflowed = true;
      }
    }
    work();
  }

  /** Whether it was not tried yet, or is to be tried again. */
  async function isOpen(pair: Pair, isDemanded: boolean): Promise<boolean> {
    const row = await encodings.find(keyOf(pair));
    if (row === null) return true;
    if (row.outcome === 'dropped') return isDemanded;
    return row.outcome === 'failed' && (row.retry_at_ms ?? 0) <= clock.wall();
  }

  /** The newest release of each model that may be installed. */
  async function scan(): Promise<void> {
    overflowed = false;
    const rows = await store.tx((db) =>
      db.all(
        qb
          .selectFrom('releases')
          .select(['release_id', 'namespace', 'name'])
          .where('withdrawn', '=', 0)
          .where('below_floor', '=', 0)
          .orderBy('counter', 'desc'),
      ),
    );
    const seen = new Set<string>();
    for (const { release_id, namespace, name } of rows) {
      if (stopped) return;
      const model = `${namespace}/${name}`;
      if (seen.has(model)) continue;
      seen.add(model);
      await want(release_id);
    }
  }

  function look(): void {
    if (encoder === null || stopped || scanning !== null) return;
    scanning = guarded(scan).finally(() => {
      scanning = null;
    });
  }

  async function guarded(task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (thrown) {
      const error = asFleetError(thrown);
      log.emit('error', 'encoding.failed', { code: error.code, detail: error.message });
    }
  }

  // ---- making it

  function next(): Job | null {
    for (const queue of [demanded, wanted]) {
      for (const [name, job] of queue) {
        queue.delete(name);
        return job;
      }
    }
    return null;
  }

  function work(): void {
    if (encoder === null || stopped || working !== null) return;
    if (demanded.size + wanted.size === 0) return;
    working = (async () => {
      for (let job = next(); job !== null && !stopped; job = next()) {
        current = nameOf(job);
        const { target } = job;
        const doing = job;
        await guarded(() => make(encoder, doing));
        current = null;
        if (stopped) log.emit('debug', 'encoding.interrupted', { sha256: target.sha256 });
      }
    })().then(() => {
      working = null;
      // Something may have come between the last look and here.
      if (demanded.size + wanted.size > 0) work();
      else if (overflowed) look();
      else void guarded(awaitRetry);
    });
  }

  async function make(by: DeltaEncoder, job: Job): Promise<void> {
    const { target, bases, beside, releaseId } = job;
    const key = keyOf(job);
    if (!(await isOpen(job, true)) || !(await isStillWanted(job))) return;
    const alone = bases.length === 0 ? null : await encodings.find({ target: target.sha256, bases: [] });
    const startedMs = clock.mono();
    const place = ({ path, sha256 }: ReleaseFile) => ({ name: path, sha256, path: parts.pathOf(sha256) });
    const encoded = await attempt(() =>
      by.encode({
        bases: bases.map(place),
        target: place(target),
        beside: beside.map(place),
        // A device that has to hold something for it must gain by that.
        bytesMax: Math.min(target.bytes, alone?.bytes ?? target.bytes) - 1,
      }),
    );
    const about = { releaseId, sha256: target.sha256, base: bases[0]?.sha256 ?? null };
    if (!encoded.ok) {
      if (stopped || encoded.refusal.code === 'interrupted') return;
      counters.failed += 1;
      log.emit('warn', 'encoding.failed', { ...about, ...encoded.refusal });
      await encodings.keepFailure(key, target.bytes, encoded.refusal);
      return;
    }
    const tookMs = Math.round(clock.mono() - startedMs);
    if (encoded.value === null) {
      counters.noSmaller += 1;
      await encodings.keepNoSmaller(key, target.bytes);
      log.emit('debug', 'encoding.no-smaller', { ...about, tookMs });
      return;
    }
    await encodings.keep(key, target.bytes, encoded.value);
    counters.made += 1;
    const bytes = encoded.value.length;
    log.emit('info', 'encoding.made', { ...about, bytes, targetBytes: target.bytes, tookMs });
  }

  /** A fault of the encoder is a failed encoding like any other. */
  async function attempt<T>(encode: () => Promise<Result<T>>): Promise<Result<T>> {
    try {
      return await encode();
    } catch (thrown) {
      const { code, message } = asFleetError(thrown);
      return { ok: false, refusal: { code, detail: message } };
    }
  }

  async function isStillWanted({ releaseId, target, bases, beside }: Job): Promise<boolean> {
    const release = await releases.find(releaseId);
    if (release === null || release.barred !== null) return false;
    const there = await Promise.all([target, ...bases, ...beside].map(({ sha256 }) => blobs.has(sha256)));
    return there.every((one) => one);
  }

  async function awaitRetry(): Promise<void> {
    const dueMs = await encodings.nextRetryAtMs();
    if (dueMs === null || stopped || retry !== null) return;
    // What is due but of no release that counts must not keep us looking.
    const timer = clock.timer(Math.max(limits.encodingRetryMs, dueMs - clock.wall()));
    retry = timer;
    void timer.done.then(() => {
      retry = null;
      look();
    });
  }

  const unhook = releases.onAccepted((releaseId) => {
    if (encoder !== null && !stopped) void guarded(() => want(releaseId));
  });

  return {
    start: look,

    async demand(release, file, held, known) {
      if (encoder === null || stopped || release.barred !== null || !isWorth(file)) return false;
      const { files } = release.manifest;
      const candidates: Pair[] = known.has('[]') ? [] : [aloneOf(file, files)];
      if (held.size > 0)
        for (const other of await earlierThan(release, earlierMax, false)) {
          if (candidates.length > limits.encodingDemandPerAsk) break;
          const pair = pairOf(file, files, other.manifest.files);
          const [base] = pair?.bases ?? [];
          if (pair === null || base === undefined || !isWorth(base)) continue;
          const bases = pair.bases.map(({ sha256 }) => sha256);
          if (!bases.every((sha256) => held.has(sha256))) continue;
          const isNew = !candidates.some((one) => nameOf(one) === nameOf(pair));
          if (isNew && !known.has(JSON.stringify(bases))) candidates.push(pair);
        }
      let making = false;
      for (const pair of candidates) {
        const name = nameOf(pair);
        if (name !== current && !demanded.has(name)) {
          if (demanded.size >= limits.encodingDemandMax) break;
          wanted.delete(name);
          demanded.set(name, { ...pair, releaseId: release.releaseId });
        }
        making = true;
      }
      work();
      return making;
    },

    counters: () => ({ ...counters, queued: demanded.size + wanted.size + (current === null ? 0 : 1) }),

    async idle() {
      for (;;) {
        if (scanning !== null) await scanning;
        else if (working !== null) await working;
        else return;
      }
    },

    async stop() {
      stopped = true;
      unhook();
      retry?.cancel();
      encoder?.stop();
      demanded.clear();
      wanted.clear();
      await Promise.all([scanning, working]);
    },
  };
}
