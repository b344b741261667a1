// Why: a disk that forgets what was not synced: data lost, torn or reordered, names lost without a sync
// of their folder. Trusts: POSIX's promises and nothing beyond them, whatever one file system adds.
// Must never: keep after a power cut what only a kind file system would have kept.

import { FleetError } from '../shared/kernel/errors.ts';
import type { Disk } from '../shared/kernel/ports.ts';
import { draw, drawInt } from './chance.ts';
import { type Incarnation, latencyMs, type World } from './world.ts';

/** Torn writes keep or lose blocks of this many bytes. Small, as the simulated files are. */
const blockBytes = 64;

interface Inode {
  live: Uint8Array;
  synced: Uint8Array;
}

type NameChange = { to: string; inode: Inode } | { from: string };

export interface SimDiskOptions {
  /** The node whose disk it is: reads and writes fail where the world says so. Absent: they never do. */
  node?: string;
  /** Files of which a bit may turn over. */
  rots?: (path: string) => boolean;
  /** Its size; what does not fit is written half and refused. */
  bytesMax?: number;
  /** After each append, whether all of it came or half: the whole file as a reader sees it now. */
  onAppend?: (path: string, live: Uint8Array) => void;
}

/** As large as any simulated world needs. */
const roomyBytes = 64 * 1024 * 1024;

export interface SimDisk {
  port(of: Incarnation): Disk;
  /** The power failed: only what POSIX promises is there afterwards, and some of the rest. */
  cut(): void;
  /** What a reader would see now, without an operation. */
  peek(path: string): Uint8Array | null;
  paths(): string[];
  /** Files of which a bit turned over. */
  rotted: ReadonlySet<string>;
  /** Every file as a reader sees it now: a backup, or what a thief copies. */
  image(): ReadonlyMap<string, Uint8Array>;
  /** Another disk's content, durable. */
  load(image: ReadonlyMap<string, Uint8Array>): void;
}

const folderOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf('/')));

export function createSimDisk(world: World, options: SimDiskOptions = {}): SimDisk {
  const { node, rots = () => false, bytesMax = roomyBytes } = options;
  let names = new Map<string, Inode>();
  const durable = new Map<string, Inode>();
  /** Changes of names since the folder's last sync, each group atomic (a rename is one). */
  const pending = new Map<string, NameChange[][]>();
  const rotted = new Set<string>();
  let cuts = 0;
  let calls = 0;

  const change = (folder: string, ...group: NameChange[]) => {
    const groups = pending.get(folder) ?? [];
    groups.push(group);
    pending.set(folder, groups);
  };
  const settle = (group: NameChange[]) => {
    for (const one of group) {
      if ('from' in one) durable.delete(one.from);
      else durable.set(one.to, one.inode);
    }
  };
  const found = (path: string): Inode => {
    const inode = names.get(path);
    if (inode === undefined) throw new FleetError('disk-io', `no such file: ${path}`);
    return inode;
  };

  /** What of a file's unsynced changes survived. */
  function survivor(inode: Inode, key: number): Uint8Array {
    const { live, synced } = inode;
    if (live === synced) return synced;
    const { seed } = world;
    const fate = draw(seed, 'disk.fate', cuts, key);
    if (fate < 0.25) return synced;
    if (fate < 0.4) return live;
    const [short, long] = live.length < synced.length ? [live, synced] : [synced, live];
    // Often the length reached the disk and the data did not: the file looks complete and is not.
    const whole = draw(seed, 'disk.whole', cuts, key) < 0.5;
    const bytes = new Uint8Array(
      whole ? live.length : drawInt(short.length, long.length, seed, 'disk.length', cuts, key),
    );
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const end = Math.min(at + blockBytes, bytes.length);
      const source = draw(seed, 'disk.block', cuts, key, at) < 0.5 ? live : synced;
      // Beyond the source's end the block reads as zeros: its length was kept, its data was not.
      bytes.set(source.subarray(Math.min(at, source.length), Math.min(end, source.length)), at);
    }
    return bytes;
  }

  function cut(): void {
    cuts += 1;
    for (const [folder, groups] of pending) {
      // A journalling file system orders names, so a prefix of the changes is what survives.
      const kept = drawInt(0, groups.length, world.seed, 'disk.names', cuts, folder);
      for (const group of groups.slice(0, kept)) settle(group);
    }
    pending.clear();
    let key = 0;
    for (const inode of new Set(durable.values())) {
      key += 1;
      inode.synced = survivor(inode, key);
      inode.live = inode.synced;
    }
    names = new Map(durable);
  }

  const failsAt = (kind: 'disk.read-error' | 'disk.write-error' | 'disk.full', path: string): boolean =>
    node !== undefined && world.fault(kind, node, path);
  const reading = (path: string): Inode | undefined => {
    if (failsAt('disk.read-error', path))
      throw new FleetError('disk-io', `simulated: ${path} cannot be read`);
    const inode = names.get(path);
    if (inode === undefined || inode.live.length === 0 || node === undefined || !rots(path)) return inode;
    if (!world.fault('disk.rot', node, path)) return inode;
    const at = drawInt(0, inode.live.length - 1, world.seed, 'rot', node, path, calls);
    rotted.add(path);
    for (const side of ['live', 'synced'] as const) {
      const bytes = inode[side].slice();
      if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ 0x10;
      inode[side] = bytes;
    }
    return inode;
  };
  const writing = (path: string): void => {
    if (failsAt('disk.write-error', path))
      throw new FleetError('disk-io', `simulated: ${path} cannot be written`);
  };

  const freeBytes = (): number => {
    let used = 0;
    for (const { live } of names.values()) used += live.length;
    return Math.max(0, bytesMax - used);
  };

  function port(of: Incarnation): Disk {
    const call = <T>(kind: string, detail: string, effect: () => T): Promise<T> => {
      calls += 1;
      return world.call(of, `disk.${kind}`, detail, latencyMs(world, 0, 2, 'disk', calls), effect);
    };
    return {
      read: (path) => call('read', path, () => reading(path)?.live.slice() ?? null),
      readRange: (path, offset, length) =>
        call(
          'readRange',
          `${path} ${offset}`,
          () => reading(path)?.live.slice(offset, offset + length) ?? null,
        ),
      size: (path) => call('size', path, () => names.get(path)?.live.length ?? null),
      create: (path) =>
        call('create', path, () => {
          writing(path);
          const known = names.get(path);
          if (known !== undefined) {
            known.live = new Uint8Array(0);
            return;
          }
          const empty = new Uint8Array(0);
          const inode = { live: empty, synced: empty };
          names.set(path, inode);
          change(folderOf(path), { to: path, inode });
        }),
      append: (path, bytes) =>
        call('append', `${path} ${bytes.length}`, () => {
          const inode = found(path);
          const full = bytes.length > freeBytes() || failsAt('disk.full', path);
          const torn = !full && failsAt('disk.write-error', path);
          // A write that fails may have come half-way.
          const part = full || torn ? bytes.subarray(0, bytes.length >> 1) : bytes;
          const longer = new Uint8Array(inode.live.length + part.length);
          longer.set(inode.live);
          longer.set(part, inode.live.length);
          inode.live = longer;
          options.onAppend?.(path, longer);
          if (full) throw new FleetError('disk-full', `simulated: no space for ${path}`);
          if (torn) throw new FleetError('disk-io', `simulated: ${path} cannot be written`);
        }),
      truncate: (path, bytes) =>
        call('truncate', `${path} ${bytes}`, () => {
          const inode = found(path);
          inode.live = inode.live.slice(0, bytes);
        }),
      fsync: (path) =>
        call('fsync', path, () => {
          writing(path);
          const inode = found(path);
          inode.synced = inode.live;
        }),
      rename: (from, to) =>
        call('rename', `${from} ${to}`, () => {
          const inode = found(from);
          names.delete(from);
          names.set(to, inode);
          change(folderOf(to), { from }, { to, inode });
        }),
      unlink: (path) =>
        call('unlink', path, () => {
          if (names.delete(path)) change(folderOf(path), { from: path });
        }),
      fsyncDir: (path) =>
        call('fsyncDir', path, () => {
          for (const group of pending.get(path) ?? []) settle(group);
          pending.delete(path);
        }),
      list: (path) =>
        call('list', path, () =>
          [...names.keys()]
            .filter((name) => folderOf(name) === path)
            .map((name) => name.slice(path.length + 1))
            .sort(),
        ),
      freeBytes: () => call('freeBytes', '', freeBytes),
    };
  }

  return {
    port,
    cut,
    peek: (path) => names.get(path)?.live ?? null,
    paths: () => [...names.keys()].sort(),
    rotted,
    image: () => new Map([...names].map(([path, inode]) => [path, inode.live])),
    load: (image) => {
      pending.clear();
      durable.clear();
      for (const [path, bytes] of image) durable.set(path, { live: bytes, synced: bytes });
      names = new Map(durable);
    },
  };
}
