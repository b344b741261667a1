// Why: this region among others: a look at each of them again and again, what it answers to them, and how that is told.
// Trusts: each part for its own checks. Must never: let one region that hangs hold up the others, or this one.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Disk, DoorHandler, RegionLine, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result } from '../../shared/kernel/result.ts';
import type { Invitation, RegionEntry, RegionsStatus } from '../../shared/wire/regions.ts';
import type { RegistryCore } from '../core.ts';
import type { FlowClass, RegionPolicies } from '../policy/flows.ts';
import type { RegionLinksTable } from '../store/region-tables.ts';
import { createAsker, type RegionAsker } from './asking.ts';
import { createDoorHandler } from './door.ts';
import { type RegionLimits, regionLimits } from './limits.ts';
import { createMembers, type Members, type OwnDoor, peerOf } from './members.ts';
import { createMirror } from './mirror.ts';
import { createMirrorFiles, type ReleaseJudge } from './mirror-files.ts';
import { createPeerRoots, type PeerRoots } from './peer-roots.ts';
import { createPulls } from './pulls.ts';
import type { IncomingStream, OutgoingStream } from './streams.ts';

export interface RegionsParts {
  line: RegionLine;
  door: OwnDoor;
  policies: RegionPolicies;
  outgoing: readonly OutgoingStream[];
  incoming: readonly IncomingStream[];
  /** Rooted at the folder of half-fetched files. */
  disk: Disk;
  /** By region, where its door is reached from here. */
  overrides: ReadonlyMap<string, string>;
  limits?: Partial<RegionLimits>;
  judge: ReleaseJudge;
  onDenied(denied: { region: string; flow: FlowClass; rule: string; what: string }): Promise<void>;
}

export interface Regions {
  members: Members;
  roots: PeerRoots;
  /** What this region's door answers. */
  handler: DoorHandler;
  invite(wanted: { region: string; createdBy: string; ttlMs: number }): Promise<Result<Invitation>>;
  status(): Promise<RegionsStatus>;
  start(): Promise<void>;
  /** What is asked at this moment is waited for: close the line as well. */
  stop(): Promise<void>;
}

interface Loop {
  entry: RegionEntry;
  wake(): void;
  done: Promise<void>;
}

export function createRegions(core: RegistryCore, parts: RegionsParts): Regions {
  const { store, repository, clock, log, region: self } = core;
  const { qb } = store;
  const limits = { ...regionLimits, ...parts.limits };
  const members = createMembers(core, parts.door);
  const roots = createPeerRoots(store);
  const mirror = createMirror(core);
  const pulls = createPulls(core, { streams: parts.incoming, limits });
  const loops = new Map<string, Loop>();
  let started = false;
  let stopped = false;
  /** The list was taken, and what follows from it was not done: the store failed. The next look does it. */
  let mustFollow = false;
  let follows = 0;

  const askerOf = (entry: RegionEntry, onBytes?: (bytes: number) => void): RegionAsker =>
    createAsker({
      line: parts.line,
      peer: peerOf(entry, parts.overrides),
      limits,
      ...(onBytes === undefined ? {} : { onBytes }),
    });

  /** The home region first: it has everything. */
  async function ordered(): Promise<RegionEntry[]> {
    const list = await members.list();
    const others = await members.peers();
    return others.sort((a, b) => Number(b.region === list?.home) - Number(a.region === list?.home));
  }
  /** When a region asked something here last: one that asks is not cut off, though it may not answer. */
  const askedAtMs = new Map<string, number>();
  /** Of which the last look found nobody. */
  const away = new Set<string>();
  const fileBytes = new Map<string, number>();
  const files = createMirrorFiles(core, {
    disk: parts.disk,
    limits,
    sources: async () =>
      (await ordered()).map((entry) => ({
        region: entry.region,
        asker: askerOf(entry, (bytes) =>
          fileBytes.set(entry.region, (fileBytes.get(entry.region) ?? 0) + bytes),
        ),
      })),
    judge: parts.judge,
  });
  mirror.onWanted(() => fetchFiles());
  let fetching: Promise<void> = Promise.resolve();
  function fetchFiles(): void {
    fetching = files.work().catch((thrown: unknown) => {
      const error = asFleetError(thrown);
      log.emit('error', 'registry.failed', {
        while: 'mirroring files',
        code: error.code,
        detail: error.message,
      });
    });
  }

  async function note(region: string, bytes: number, refusal: Refusal | null): Promise<void> {
    const unreachable = refusal?.code === 'region-unreachable';
    const state: RegionLinksTable['state'] =
      refusal === null ? 'connected' : unreachable ? 'unreachable' : 'refused';
    if (unreachable) away.add(region);
    else away.delete(region);
    const bytesIn = bytes + (fileBytes.get(region) ?? 0);
    fileBytes.delete(region);
    /** A line that broke in the middle of a look was there until then. */
    const lastHeard = (beforeMs: number | null): number | null =>
      bytes > 0 ? clock.wall() : Math.max(beforeMs ?? 0, askedAtMs.get(region) ?? 0) || null;
    const changed = await store.tx((db) => {
      const before = db.first(
        qb
          .selectFrom('region_links')
          .select(['state', 'last_contact_ms', 'bytes_in'])
          .where('region', '=', region),
      );
      const row = {
        state,
        last_contact_ms: unreachable ? lastHeard(before?.last_contact_ms ?? null) : clock.wall(),
        code: refusal?.code ?? null,
        detail: refusal?.detail ?? null,
        bytes_in: (before?.bytes_in ?? 0) + bytesIn,
      };
      db.run(
        qb
          .insertInto('region_links')
          .values({ region, ...row })
          .onConflict((conflict) => conflict.column('region').doUpdateSet(row)),
      );
      return before?.state !== state;
    });
    if (changed) {
      const level = refusal === null ? 'info' : 'warn';
      log.emit(level, 'regions.link.changed', { region, state, ...(refusal ?? {}) });
    }
  }

  /** One look at a region: the list, the catalogue, its root, its lists. Of several refusals the first is told. */
  async function look(entry: RegionEntry): Promise<Result<void>> {
    let bytes = 0;
    const asker = askerOf(entry, (more) => {
      bytes += more;
    });
    const looked = await (async (): Promise<Result<void>> => {
      const list = await asker.list();
      if (!list.ok) return list;
      const refreshed = await mirror.refresh(entry.region, asker);
      // Roots first: the list of a new home is signed with keys that only they name.
      const taken = await members.take(list.value);
      if ((taken.ok && taken.value === 'taken') || mustFollow) await follow();
      const rooted = await roots.refresh(entry, asker);
      const pulled = await pulls.pull(entry.region, asker);
      await tellMoved(asker, entry);
      for (const one of [refreshed, rooted, pulled]) if (!one.ok) return one;
      // The other end has not heard of the newest list, or of the new home, yet.
      const isBehind = !taken.ok && ['region-list-old', 'region-list-invalid'].includes(taken.refusal.code);
      if (!taken.ok && !isBehind) return taken;
      const [refused] = pulled.ok ? pulled.value.refused : [];
      return refused === undefined
        ? ok()
        : { ok: false, refusal: { ...refused, detail: `${refused.stream}: ${refused.detail}` } };
    })();
    // What broke off because this registry stops says nothing about the line.
    if (!stopped) await note(entry.region, bytes, looked.ok ? null : looked.refusal);
    return looked;
  }

  /** The home region's list says where this door is; where that is not so any more, it is told. */
  async function tellMoved(asker: RegionAsker, entry: RegionEntry): Promise<void> {
    const list = await members.list();
    const url = parts.door.url();
    const own = list?.regions.find((one) => one.region === self);
    if (url === null || own === undefined || own.url === url || list?.home !== entry.region) return;
    await asker.moved(url);
  }

  async function run(loop: Loop, woken: () => Promise<void>): Promise<void> {
    const { entry } = loop;
    let pauseMs = limits.roundEveryMs;
    while (!stopped) {
      let reached = false;
      try {
        // This region may have taken over, or its door may be elsewhere, since the last look.
        await members.refreshOwn();
        const looked = await look(entry);
        reached = looked.ok || looked.refusal.code !== 'region-unreachable';
      } catch (thrown) {
        const error = asFleetError(thrown);
        log.emit('error', 'registry.failed', {
          while: `looking at region ${entry.region}`,
          code: error.code,
          detail: error.message,
        });
      }
      // Another loop goes on where the region is now, or it is none any more.
      if (stopped || loops.get(entry.region) !== loop) return;
      // Also where nobody answers: a publisher may have brought the bytes that a lost region had.
      fetchFiles();
      pauseMs = reached ? limits.roundEveryMs : Math.min(limits.roundEveryMaxMs, pauseMs * 2);
      const pause: Timer = clock.timer(pauseMs);
      await Promise.race([pause.done, woken()]);
      pause.cancel();
    }
  }

  /** A loop for each region of the list, and none for those that are gone or are reached elsewhere now. */
  async function follow(): Promise<void> {
    mustFollow = true;
    follows += 1;
    const turn = follows;
    await members.refreshOwn();
    const peers = await members.peers();
    for (const [name, loop] of loops) {
      const entry = peers.find((one) => one.region === name);
      if (entry !== undefined && entry.url === loop.entry.url) continue;
      loops.delete(name);
      loop.wake();
    }
    for (const entry of peers) {
      if (loops.has(entry.region) || stopped || !started) continue;
      let wake: () => void = () => undefined;
      const woken = (): Promise<void> =>
        new Promise((resolve) => {
          wake = resolve;
        });
      const loop: Loop = { entry, wake: () => wake(), done: Promise.resolve() };
      loops.set(entry.region, loop);
      loop.done = run(loop, woken);
      running.add(loop.done);
      void loop.done.finally(() => running.delete(loop.done));
    }
    // One that began later may have read a newer list, and failed.
    if (turn === follows) mustFollow = false;
  }
  const running = new Set<Promise<void>>();

  /** One that was away and asks is back: it is looked at now, not when its long pause is over. */
  function heardFrom(region: string): void {
    const nowMs = clock.wall();
    const lastMs = askedAtMs.get(region) ?? 0;
    askedAtMs.set(region, nowMs);
    if (away.has(region) && nowMs - lastMs >= limits.roundEveryMs) loops.get(region)?.wake();
  }

  const handle = createDoorHandler({
    core,
    members,
    policies: parts.policies,
    streams: parts.outgoing,
    limits,
    ready: () => started && !stopped,
    onDenied: parts.onDenied,
    onAsked: heardFrom,
    log,
  });

  return {
    members,
    roots,
    handler: async (request) => {
      const answer = await handle(request);
      // A region that has just joined is looked at from now on.
      if (request.method === 'POST' && answer.status === 200) await follow();
      return answer;
    },

    invite: (wanted) => members.invite(wanted),

    async status() {
      const list = await members.list();
      const isHome = await repository.isHome();
      const links = await store.tx((db) => db.all(qb.selectFrom('region_links').selectAll()));
      const timestamp = await repository.current('timestamp');
      const entries = list?.regions ?? [];
      const regions: RegionsStatus['regions'] = [];
      for (const { region, url, joinedAtMs } of entries) {
        const link = links.find((one) => one.region === region);
        const isSelf = region === self;
        regions.push({
          ...{ region, url, joinedAtMs },
          home: region === list?.home,
          self: isSelf,
          link: isSelf
            ? null
            : {
                state: link?.state ?? 'waiting',
                lastContactMs: link?.last_contact_ms ?? null,
                code: link?.code ?? null,
                detail: link?.detail ?? null,
                bytesIn: link?.bytes_in ?? 0,
                streams: await pulls.places(region),
              },
        });
      }
      return {
        region: self,
        home: isHome ? self : (list?.home ?? self),
        signs: isHome,
        door: parts.door.url(),
        listVersion: list?.version ?? 0,
        regions,
        catalogue: {
          timestampVersion: timestamp.version,
          expiresAtMs: timestamp.expiresAtMs,
          ...(await files.pending()),
        },
        invitations: await members.invitations(),
      };
    },

    async start() {
      started = true;
      await follow();
      fetchFiles();
    },

    async stop() {
      stopped = true;
      files.stop();
      for (const loop of loops.values()) loop.wake();
      loops.clear();
      await Promise.all(running);
      await fetching;
    },
  };
}
