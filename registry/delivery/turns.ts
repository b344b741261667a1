// Why: who downloads now and who waits: a bounded number of devices at one time, first come first served, each for a
// while (DESIGN 7). Trusts: its caller for who asks and for what left for a device.
// Must never: give a device more for asking more often, or let one that takes nothing keep others from their turn.

import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import type { FleetLimits } from '../fleet/limits.ts';
import { type TokenBucket, tokenBucket } from './token-bucket.ts';

/** Why a turn is over: others wait; it took less than the least rate; the registry stops. */
export type TurnEnd = 'over' | 'slow' | 'stopped';

/** One request of a device that has the turn. */
export interface Lease {
  /** Null while the turn lasts. */
  ended(): TurnEnd | null;
  /**
   * So many bytes are to go: null where they may at once, else when they may, by what is on its way to the device and
   * by its rate and the region's. To be asked for one piece after the other, each followed by `landed`.
   */
  go(bytes: number): Promise<void> | null;
  /** They left for the device, or will not. */
  landed(bytes: number, taken: boolean): void;
  /** The request is done. Once. */
  leave(): void;
}

export interface TurnCounters {
  /** Turns that ended because too little was taken, and because others waited. */
  slow: number;
  over: number;
  /** Questions that waited in vain and were told to ask again. */
  inVain: number;
}

export interface Turns {
  /** The turn, as soon as it is this device's; null where it is to ask again. It keeps its place then. */
  enter(deviceId: string): Promise<Lease | null>;
  downloading(): number;
  waiting(): number;
  counters(): TurnCounters;
  /** Ends every turn, sends away who waits. */
  stop(): void;
}

type TurnLimits = Pick<
  FleetLimits,
  | 'downloadsMax'
  | 'downloadWaitMs'
  | 'downloadPlaceKeptMs'
  | 'downloadIdleMs'
  | 'downloadTurnMs'
  | 'downloadBytesPerSecondMin'
  | 'downloadSlowWindowMs'
  | 'downloadLookMs'
  | 'fetchWindowBytes'
  | 'deviceBytesPerSecondMax'
  | 'regionBytesPerSecondMax'
>;

interface Holder {
  readonly deviceId: string;
  readonly sinceMs: number;
  /** Under way. */
  requests: number;
  idleSinceMs: number;
  windowFromMs: number;
  windowBytes: number;
  /** Of the window, in which we held the bytes back. */
  windowHeldMs: number;
  /** Since when they are held back; null where they are not. */
  heldSinceMs: number | null;
  /** On its way, of all its requests together: many of them get no more than one. */
  flyingBytes: number;
  /** Who waits for room, first come first. */
  readonly room: { bytes: number; go(): void }[];
  /** Rates are asked for one after the other. */
  pacing: Promise<void> | null;
  end: TurnEnd | null;
}

interface Ask {
  untilMs: number;
  settle(lease: Lease | null): void;
}

interface Waiter {
  readonly deviceId: string;
  readonly asks: Set<Ask>;
  /** Since when nobody asks for it. */
  leftAtMs: number;
}

/** What may go at once after a pause: two frames at least, or no frame ever fitted. */
const burstBytes = (bytesPerSecond: number): number => Math.max(128 * 1024, bytesPerSecond / 4);

export function createTurns(clock: Clock, limits: TurnLimits): Turns {
  const holders = new Map<string, Holder>();
  /** First come first. */
  const waiters = new Map<string, Waiter>();
  /** Of devices whose rate is limited, as long as it matters; the longest untouched first. */
  const buckets = new Map<string, TokenBucket>();
  const region = tokenBucket(limits.regionBytesPerSecondMax, burstBytes(limits.regionBytesPerSecondMax));
  const counters: TurnCounters = { slow: 0, over: 0, inVain: 0 };
  let look: Timer | null = null;
  let stopped = false;

  function bucketOf(deviceId: string): TokenBucket | null {
    const rate = limits.deviceBytesPerSecondMax;
    const bucket = buckets.get(deviceId) ?? tokenBucket(rate, burstBytes(rate));
    if (bucket === null) return null;
    buckets.delete(deviceId);
    buckets.set(deviceId, bucket);
    // Whoever was not here for that many turns of others has paid its debt.
    const oldest = buckets.keys().next();
    if (buckets.size > 4 * limits.downloadsMax && oldest.done !== true) buckets.delete(oldest.value);
    return bucket;
  }

  function end(holder: Holder, why: TurnEnd): void {
    holder.end = why;
    if (holders.get(holder.deviceId) === holder) holders.delete(holder.deviceId);
    if (why !== 'stopped') counters[why] += 1;
  }

  function someoneWaits(): boolean {
    for (const { asks } of waiters.values()) if (asks.size > 0) return true;
    return false;
  }

  /** Ends the turn of one that took too little in the last window; begins the next window. */
  function judge(holder: Holder, now: number): void {
    const passedMs = now - holder.windowFromMs;
    if (passedMs < limits.downloadSlowWindowMs) return;
    const heldMs = holder.heldSinceMs === null ? 0 : now - Math.max(holder.heldSinceMs, holder.windowFromMs);
    const countedMs = Math.max(0, passedMs - holder.windowHeldMs - heldMs);
    if (holder.windowBytes * 1_000 < limits.downloadBytesPerSecondMin * countedMs) end(holder, 'slow');
    else beginWindow(holder, now);
  }

  function beginWindow(holder: Holder, now: number): void {
    holder.windowFromMs = now;
    holder.windowBytes = 0;
    holder.windowHeldMs = 0;
  }

  const isIdle = (holder: Holder, now: number): boolean =>
    holder.requests === 0 && now - holder.idleSinceMs >= limits.downloadIdleMs;

  /** Lets in who waits, as far as there is room or somebody who has the turn does not use it. */
  function admit(now: number): void {
    if (waiters.size === 0) return;
    if (holders.size >= limits.downloadsMax)
      for (const [deviceId, holder] of holders) if (isIdle(holder, now)) holders.delete(deviceId);
    for (const [deviceId, waiter] of waiters) {
      if (holders.size >= limits.downloadsMax) return;
      // Told to ask again and not back yet: the next one does not wait for it, and it keeps its place.
      if (waiter.asks.size === 0) continue;
      waiters.delete(deviceId);
      const holder = newHolder(deviceId, now);
      for (const ask of waiter.asks) ask.settle(lease(holder));
    }
  }

  function newHolder(deviceId: string, now: number): Holder {
    const holder: Holder = {
      deviceId,
      sinceMs: now,
      requests: 0,
      idleSinceMs: now,
      windowFromMs: now,
      windowBytes: 0,
      windowHeldMs: 0,
      heldSinceMs: null,
      flyingBytes: 0,
      room: [],
      pacing: null,
      end: null,
    };
    holders.set(deviceId, holder);
    return holder;
  }

  const fits = (holder: Holder, bytes: number): boolean =>
    holder.flyingBytes === 0 || holder.flyingBytes + bytes <= limits.fetchWindowBytes;

  /** Null where there is room; the bytes are counted in when it resolves. */
  function takeOff(holder: Holder, bytes: number): Promise<void> | null {
    if (holder.room.length === 0 && fits(holder, bytes)) {
      holder.flyingBytes += bytes;
      return null;
    }
    return new Promise((go) => holder.room.push({ bytes, go }));
  }

  function land(holder: Holder, bytes: number): void {
    holder.flyingBytes -= bytes;
    for (let next = holder.room[0]; next !== undefined && fits(holder, next.bytes); next = holder.room[0]) {
      holder.room.shift();
      holder.flyingBytes += next.bytes;
      next.go();
    }
  }

  async function pace(holder: Holder, bytes: number): Promise<void> {
    const before = holder.pacing;
    const mine = (async () => {
      await before;
      // The device's own rate first: what it cannot take yet must not be taken from the region's.
      for (const bucket of [bucketOf(holder.deviceId), region]) {
        if (holder.end !== null) return;
        const waitMs = bucket?.take(bytes, clock.mono()) ?? 0;
        if (waitMs <= 0) continue;
        holder.heldSinceMs = clock.mono();
        await clock.timer(waitMs).done;
        // Only what lies in the present window: the one before it was judged with its own share.
        holder.windowHeldMs += clock.mono() - Math.max(holder.heldSinceMs, holder.windowFromMs);
        holder.heldSinceMs = null;
      }
    })();
    holder.pacing = mine;
    await mine;
    if (holder.pacing === mine) holder.pacing = null;
  }

  function lease(holder: Holder): Lease {
    holder.requests += 1;
    return {
      ended: () => holder.end,
      go(bytes) {
        const room = takeOff(holder, bytes);
        if (region === null && limits.deviceBytesPerSecondMax === 0) return room;
        return room === null ? pace(holder, bytes) : room.then(() => pace(holder, bytes));
      },
      landed(bytes, taken) {
        land(holder, bytes);
        if (!taken) return;
        holder.windowBytes += bytes;
        if (holder.end === null) judge(holder, clock.mono());
      },
      leave() {
        holder.requests -= 1;
        holder.idleSinceMs = clock.mono();
      },
    };
  }

  function lookAgain(): void {
    if (look !== null || waiters.size === 0 || stopped) return;
    const timer = clock.timer(limits.downloadLookMs);
    look = timer;
    void timer.done.then(() => {
      look = null;
      if (stopped) return;
      lookAround(clock.mono());
      lookAgain();
    });
  }

  function lookAround(now: number): void {
    for (const [deviceId, waiter] of waiters) {
      for (const ask of waiter.asks) {
        if (ask.untilMs > now) continue;
        waiter.asks.delete(ask);
        waiter.leftAtMs = now;
        counters.inVain += 1;
        ask.settle(null);
      }
      if (waiter.asks.size === 0 && now - waiter.leftAtMs >= limits.downloadPlaceKeptMs)
        waiters.delete(deviceId);
    }
    if (someoneWaits())
      for (const holder of [...holders.values()]) {
        judge(holder, now);
        if (holder.end === null && now - holder.sinceMs >= limits.downloadTurnMs) end(holder, 'over');
      }
    admit(now);
  }

  return {
    async enter(deviceId) {
      if (stopped) return null;
      const now = clock.mono();
      const holder = holders.get(deviceId);
      if (holder !== undefined) {
        // A pause is no slowness; asking for little again and again is.
        if (isIdle(holder, now)) beginWindow(holder, now);
        return lease(holder);
      }
      return new Promise((settle) => {
        const waiter = waiters.get(deviceId) ?? { deviceId, asks: new Set(), leftAtMs: now };
        waiters.set(deviceId, waiter);
        waiter.asks.add({ untilMs: now + limits.downloadWaitMs, settle });
        admit(now);
        lookAgain();
      });
    },
    downloading: () => holders.size,
    waiting: () => waiters.size,
    counters: () => ({ ...counters }),
    stop() {
      stopped = true;
      look?.cancel();
      look = null;
      for (const holder of [...holders.values()]) end(holder, 'stopped');
      for (const { asks } of waiters.values()) for (const ask of asks) ask.settle(null);
      waiters.clear();
    },
  };
}
