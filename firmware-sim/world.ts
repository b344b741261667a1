// Why: virtual time and the order of everything. Every call a node makes through a port is a place where
// its power may fail, before the effect or after it and before the caller learns of it.
// Trusts: nodes to touch the world through ports only. Must never: resolve a call of a dead incarnation,
// or let two completions run into each other.

import { sha256Stream } from '../shared/crypto/digests.ts';
import type { Clock, Entropy, Timer } from '../shared/kernel/ports.ts';
import { draw, draw32, drawBytes, drawInt } from './chance.ts';
import type { FaultKind, Faults } from './faults.ts';

export interface Operation {
  node: string;
  /** `disk.append`, `store.tx`, `runtime.load`, `timer`, … */
  kind: string;
  /** Counts the node's operations of this kind over all its incarnations, from 0. */
  index: number;
  /** Counts the node's operations of any kind, from 0. */
  total: number;
  detail: string;
}

export type Cut = 'before' | 'after';

/** What a person who looks at a run wants to see of it: one line, or one bar, of a timeline. */
export interface Mark {
  atMs: number;
  node: string;
  kind: 'boot' | 'cut' | 'fault' | 'step' | 'phase' | 'link' | 'rollout' | 'violation';
  text: string;
}

/** What a node's clocks show, by the world's time. */
export interface ClockModel {
  wallMs(nowMs: number): number;
  /** Grows, whatever the wall clock does; another origin after each boot. */
  monoMs(nowMs: number): number;
}

/** One life of a node between two power cuts. */
export interface Incarnation {
  node: string;
  number: number;
  alive: boolean;
  bootedAtMs: number;
}

/** True time at the world's beginning: 1 January 2026, UTC. */
export const originMsDefault = 1_767_225_600_000;

export interface WorldOptions {
  seed: number;
  /** True time at its beginning, Unix milliseconds; absent: `originMsDefault`. */
  originMs?: number;
  /** Whether the power fails at this operation. */
  cutAt: (operation: Operation) => Cut | null;
  /** The node lost its power; called once for each cut. */
  onCut: (incarnation: Incarnation) => void;
  /** More operations than this in one run are a livelock. */
  operationsMax: number;
  /** Every other fault; none where absent. */
  faults?: Faults;
  /** The clocks of one life; where absent they run evenly from anywhere. */
  clockOf?: (of: Incarnation) => ClockModel;
  /** False: only the hash of the trace is kept. */
  keepTrace?: boolean;
}

interface Entry {
  atMs: number;
  tie: number;
  fire: () => Promise<void> | void;
}

export interface World {
  readonly seed: number;
  readonly originMs: number;
  nowMs(): number;
  boot(node: string): Incarnation;
  /** A call through a port: takes effect when it completes. `effect` may await microtasks only. */
  call<T>(
    of: Incarnation,
    kind: string,
    detail: string,
    latencyMs: number,
    effect: () => T | Promise<T>,
  ): Promise<T>;
  /** Something that happens to the world, not to a node. */
  later(ms: number, fire: () => void): void;
  clock(of: Incarnation): Clock;
  entropy(of: Incarnation): Entropy;
  /** Whether this fault happens now; each question has a number of its own among those of its kind and node. */
  fault(kind: FaultKind, node: string, detail?: string): boolean;
  /** As `fault`, but neither noted nor marked: the caller says what came of it. */
  chance(kind: FaultKind, node: string): boolean;
  /** Power cut from outside: a thief, a watchdog, a person. No operation is involved. */
  kill(of: Incarnation): void;
  note(line: string): void;
  mark(mark: Omit<Mark, 'atMs'>): void;
  marks(): readonly Mark[];
  /** Records a broken invariant and ends the run. The first one counts. */
  violate(message: string): void;
  violation(): string | null;
  /**
   * Runs until nothing is left to happen, an invariant broke, `operationsMax` was reached, or the next thing would
   * happen after `untilMs`; the world's time is then `untilMs`.
   */
  run(untilMs?: number): Promise<void>;
  operations(): number;
  trace(): string[];
  traceSha256(): string;
}

/** Taken before the guard shuts it: what runs inside the world may not have turns of its own. */
const nextTurn = setImmediate;
/** Lets all microtasks run: nothing else is between two completions. */
const drained = () => new Promise<void>((resolve) => nextTurn(resolve));

export function createWorld(options: WorldOptions): World {
  const { seed } = options;
  const heap = createHeap();
  const keepTrace = options.keepTrace !== false;
  const lines: string[] = [];
  const marks: Mark[] = [];
  const encoder = new TextEncoder();
  const hash = sha256Stream();
  let hashed: string | null = null;
  const counts = new Map<string, number>();
  const incarnations = new Map<string, number>();
  let nowMs = 0;
  let entries = 0;
  let operations = 0;
  let violation: string | null = null;

  const count = (key: string): number => {
    const value = counts.get(key) ?? 0;
    counts.set(key, value + 1);
    return value;
  };
  const note = (line: string) => {
    // The world has ended: what still runs has nobody to tell.
    if (hashed !== null) return;
    const whole = `${nowMs} ${line}`;
    hash.update(encoder.encode(`${whole}\n`));
    if (keepTrace) lines.push(whole);
  };
  const mark: World['mark'] = (one) => {
    marks.push({ atMs: nowMs, ...one });
  };
  const violate = (message: string) => {
    if (violation !== null) return;
    violation = message;
    note(`VIOLATION ${message}`);
    mark({ node: 'world', kind: 'violation', text: message });
  };
  const schedule = (ms: number, fire: Entry['fire']) => {
    entries += 1;
    heap.push({ atMs: nowMs + ms, tie: draw32(seed, 'tie', entries), fire });
  };

  function begin(of: Incarnation, kind: string, detail: string): Operation {
    const operation = {
      node: of.node,
      kind,
      index: count(`${of.node}|${kind}`),
      total: count(of.node),
      detail,
    };
    operations += 1;
    return operation;
  }

  function cut(of: Incarnation): void {
    if (!of.alive) return;
    of.alive = false;
    note(`${of.node} power cut`);
    mark({ node: of.node, kind: 'cut', text: 'power cut' });
    options.onCut(of);
  }

  async function complete<T>(
    of: Incarnation,
    operation: Operation,
    effect: () => T | Promise<T>,
    settle: { resolve: (value: T) => void; reject: (error: unknown) => void },
  ): Promise<void> {
    if (!of.alive) return;
    const when = options.cutAt(operation);
    note(
      `${of.node} ${operation.kind}#${operation.index} ${operation.detail}${when === null ? '' : ` cut ${when}`}`,
    );
    if (when === 'before') return cut(of);
    let tell: () => void;
    try {
      const result = effect();
      // Most effects are done at once; waiting for them as well would only take turns.
      const value = result instanceof Promise ? await result : result;
      tell = () => settle.resolve(value);
    } catch (error) {
      tell = () => settle.reject(error);
    }
    if (when === 'after') return cut(of);
    tell();
  }

  function call<T>(
    of: Incarnation,
    kind: string,
    detail: string,
    latencyMs: number,
    effect: () => T | Promise<T>,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (!of.alive) return;
      const operation = begin(of, kind, detail);
      schedule(latencyMs, () => complete(of, operation, effect, { resolve, reject }));
    });
  }

  function timer(of: Incarnation, ms: number): Timer {
    let cancelled = false;
    const done = new Promise<void>((resolve) => {
      const operation = begin(of, 'timer', `${ms} ms`);
      const atMs = nowMs + ms;
      const reject = () => undefined;
      heap.push({
        atMs,
        tie: draw32(seed, 'tie', entries),
        // A cancelled timer is not an operation: it must not move time.
        fire: () => (cancelled ? undefined : complete(of, operation, () => undefined, { resolve, reject })),
        dropped: () => cancelled || !of.alive,
      });
      entries += 1;
    });
    return {
      done,
      cancel: () => {
        cancelled = true;
      },
    };
  }

  return {
    seed,
    originMs: options.originMs ?? originMsDefault,
    nowMs: () => nowMs,
    boot: (node) => {
      const number = (incarnations.get(node) ?? 0) + 1;
      incarnations.set(node, number);
      note(`${node} boot ${number}`);
      mark({ node, kind: 'boot', text: `boot ${number}` });
      return { node, number, alive: true, bootedAtMs: nowMs };
    },
    call,
    later: (ms, fire) => schedule(ms, fire),
    clock: (of) => {
      const model = options.clockOf?.(of) ?? evenClock(seed, of);
      return {
        wall: () => model.wallMs(nowMs),
        mono: () => model.monoMs(nowMs),
        timer: (ms) => timer(of, ms),
      };
    },
    entropy: (of) => ({
      u32: () => draw32(seed, 'entropy', of.node, count(`${of.node}|entropy`)),
      bytes: (n) => drawBytes(n, seed, 'entropy', of.node, count(`${of.node}|entropy`)),
    }),
    fault: (kind, node, detail = '') => {
      const happens = options.faults?.happens(kind, node, nowMs) === true;
      if (!happens) return false;
      note(`${node} fault ${kind} ${detail}`);
      mark({ node, kind: 'fault', text: detail === '' ? kind : `${kind} ${detail}` });
      return true;
    },
    chance: (kind, node) => options.faults?.happens(kind, node, nowMs) === true,
    kill: (of) => cut(of),
    note,
    mark,
    marks: () => marks,
    violate,
    violation: () => violation,
    run: async (untilMs = Number.POSITIVE_INFINITY) => {
      for (;;) {
        await drained();
        if (violation !== null) return;
        const entry = heap.popUntil(untilMs);
        if (entry === undefined) {
          if (Number.isFinite(untilMs)) nowMs = Math.max(nowMs, untilMs);
          return;
        }
        if (operations > options.operationsMax)
          return violate(`more than ${options.operationsMax} operations`);
        nowMs = entry.atMs;
        await entry.fire();
      }
    },
    operations: () => operations,
    trace: () => lines,
    traceSha256: () => {
      hashed ??= hash.hex();
      return hashed;
    },
  };
}

/** Wall time starts anywhere (no battery), monotonic time has another origin after each boot. */
function evenClock(seed: number, of: Incarnation): ClockModel {
  const wallOffsetMs = drawInt(0, 2_000_000_000_000, seed, 'wall', of.node, of.number);
  const monoOffsetMs = drawInt(0, 10_000_000, seed, 'mono', of.node, of.number) - of.bootedAtMs;
  return { wallMs: (nowMs) => nowMs + wallOffsetMs, monoMs: (nowMs) => nowMs + monoOffsetMs };
}

/** A binary heap by (time, tie-break). Entries that were dropped are passed over. */
function createHeap() {
  const items: (Entry & { dropped?: () => boolean })[] = [];
  const before = (a: Entry, b: Entry) => a.atMs < b.atMs || (a.atMs === b.atMs && a.tie < b.tie);
  const swap = (i: number, j: number) => {
    const a = items[i];
    const b = items[j];
    if (a === undefined || b === undefined) return;
    items[i] = b;
    items[j] = a;
  };
  const isBefore = (i: number, j: number) => {
    const a = items[i];
    const b = items[j];
    return a !== undefined && b !== undefined && before(a, b);
  };
  const take = () => {
    swap(0, items.length - 1);
    const first = items.pop();
    for (let at = 0; ; ) {
      const left = 2 * at + 1;
      const least = isBefore(left + 1, left) ? left + 1 : left;
      if (!isBefore(least, at)) return first;
      swap(least, at);
      at = least;
    }
  };
  return {
    push: (entry: Entry & { dropped?: () => boolean }) => {
      items.push(entry);
      for (let at = items.length - 1; at > 0; ) {
        const parent = (at - 1) >> 1;
        if (!isBefore(at, parent)) break;
        swap(at, parent);
        at = parent;
      }
    },
    /** The next entry that is not after `untilMs`, or undefined. */
    popUntil: (untilMs: number): Entry | undefined => {
      for (;;) {
        const [next] = items;
        if (next === undefined || (next.atMs > untilMs && next.dropped?.() !== true)) return undefined;
        const first = take();
        if (first === undefined || first.dropped?.() !== true) return first;
      }
    },
  };
}

/** Latency of one call in whole milliseconds, drawn for this call alone. */
export function latencyMs(world: World, low: number, high: number, ...key: (string | number)[]): number {
  return drawInt(low, high, world.seed, 'latency', ...key);
}

/** Whether something with this probability happens to this operation. */
export function happens(world: World, probability: number, ...key: (string | number)[]): boolean {
  return draw(world.seed, 'fault', ...key) < probability;
}
