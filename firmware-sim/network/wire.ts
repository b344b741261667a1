// Why: one simulated TCP connection: what was sent arrives in its order or not at all, late, or not while the path is
// cut; each arrival is a call of the receiver, so that its power may fail there.
// Trusts: the world for time and faults. Must never: let anything arrive at an end that is closed or dead, nor tell
// an end of what it cannot know.

import { drawInt } from '../chance.ts';
import type { FaultKind } from '../faults.ts';
import { type Incarnation, latencyMs, type World } from '../world.ts';
import { bytesOf, type ClientPacket, describe, type Packet, type ServerPacket } from './packets.ts';

/** MQTT's keepalive is 30 s; a side that hears nothing gives up after one and a half of it at the latest. */
const silenceMs = { min: 30_000, max: 45_000 };

export interface End<Out, In> {
  readonly of: Incarnation;
  readonly open: boolean;
  /** Bytes sent that have not arrived. */
  readonly waitingBytes: number;
  send(packet: Out): void;
  /** Ends it: the other side hears that after everything that was sent before. */
  close(): void;
  /** Each packet that arrives. */
  listen(take: (packet: In) => void): void;
  /** Once, when it ended for whatever reason and this side learned of it. */
  onClose(told: () => void): void;
  /** Resolves true when at most this many bytes wait, false when it ended. */
  room(bytesMax: number): Promise<boolean>;
}

export type ClientEnd = End<ClientPacket, ServerPacket>;
export type ServerEnd = End<ServerPacket, ClientPacket>;

export interface Wire {
  readonly client: ClientEnd;
  readonly server: ServerEnd;
  /** The path was cut: whoever hears nothing for too long gives up, while `still` holds. */
  silence(still: () => boolean): void;
  /** The path is free again. */
  resume(): void;
  /** This life is over. `told`: its machine lives and says so. */
  lose(of: Incarnation, told: boolean): void;
  /** The server's machine has another life, which does not know this connection: the client hears that when it pings. */
  reset(): void;
  /** Both ends are told soon; nothing arrives any more. */
  break(): void;
}

export interface WireParts {
  world: World;
  /** Unique, and its draws' key. */
  id: string;
  client: Incarnation;
  server: Incarnation;
  /** Whether nothing passes at the moment, in either direction. */
  blocked(): boolean;
}

interface Side<Out extends Packet, In extends Packet> {
  end: End<Out, In>;
  /** Something arrives here. */
  take(packet: In): void;
  /** It ended and this side learns of it now. */
  learn(): void;
  /** It ended, and nobody is left here to learn of it. */
  forget(): void;
}

export function createWire(parts: WireParts): Wire {
  const { world, id } = parts;
  const node = parts.client.node;
  let broken = false;
  const drawn = (low: number, high: number, ...key: (string | number)[]): number =>
    drawInt(low, high, world.seed, 'wire', id, ...key);
  const up: Lane<ClientPacket> = createLane<ClientPacket>(parts, 'up', parts.server, {
    isOpen: () => !broken && server.end.open,
    operationOf: () => 'bus.take',
    take: (packet) => server.take(packet),
    fin: () => server.learn(),
  });
  const down: Lane<ServerPacket> = createLane<ServerPacket>(parts, 'down', parts.client, {
    isOpen: () => !broken && client.end.open,
    operationOf: (packet) => (packet.cmd === 'publish' ? 'bus.receive' : null),
    take: (packet) => client.take(packet),
    fin: () => client.learn(),
  });

  const breakIt = (): void => {
    if (broken) return;
    broken = true;
    world.later(drawn(1, 400, 'break', 'client'), () => client.learn());
    world.later(drawn(1, 400, 'break', 'server'), () => server.learn());
  };

  let publications = 0;
  /** Sends one packet with whatever goes wrong with it. */
  const transmit = <P extends Packet>(lane: Lane<P>, packet: P): void => {
    if (packet.cmd !== 'publish') {
      lane.push(packet);
      return;
    }
    publications += 1;
    const number = publications;
    // All are asked, whatever happens: one answer must not move another's number.
    const happens = (kind: FaultKind) => world.fault(kind, node, packet.topic);
    const [breaks, drops, delays] = [happens('link.break'), happens('link.drop'), happens('link.delay')];
    const [doubles, overtaken] = [happens('link.duplicate'), happens('link.reorder')];
    if (breaks) {
      breakIt();
      return;
    }
    if (drops) {
      if (packet.qos === 0) return;
      // TCP gives up on it: the connection ends, and the sender never learns whether it was taken.
      if (drawn(0, 1, 'taken', number) === 0) breakIt();
      else lane.push(packet, 0, breakIt);
      return;
    }
    const extraMs = delays ? drawn(500, 20_000, 'delay', number) : 0;
    if (overtaken) lane.straggle(packet, extraMs + drawn(200, 5_000, 'reorder', number));
    else lane.push(packet, extraMs);
    if (doubles) lane.push(packet, extraMs);
  };

  const client: Side<ClientPacket, ServerPacket> = createSide<ClientPacket, ServerPacket>(
    parts.client,
    up,
    (packet) => transmit(up, packet),
  );
  const server: Side<ServerPacket, ClientPacket> = createSide<ServerPacket, ClientPacket>(
    parts.server,
    down,
    (packet) => transmit(down, packet),
  );

  let silences = 0;
  return {
    client: client.end,
    server: server.end,
    silence: (still) => {
      silences += 1;
      for (const [name, { end }] of [['client', client] as const, ['server', server] as const]) {
        world.later(drawn(silenceMs.min, silenceMs.max, name, silences), () => {
          // Where the path is free again before the other side gave up as well, it learns of it then.
          if (still()) end.close();
        });
      }
    },
    resume: () => {
      up.pump();
      down.pump();
    },
    lose: (of, told) => {
      const [gone, other] = client.end.of === of ? [client, server] : [server, client];
      if (!gone.end.open && !other.end.open) return;
      gone.forget();
      const silentMs = drawn(silenceMs.min, silenceMs.max, 'lost');
      const isTold = told && !parts.blocked();
      world.later(isTold ? drawn(1, 50, 'told') : silentMs, () => other.learn());
    },
    reset: () => {
      world.later(drawn(1, silenceMs.min, 'reset'), () => {
        if (!parts.blocked()) client.learn();
      });
    },
    break: breakIt,
  };
}

function createSide<Out extends Packet, In extends Packet>(
  of: Incarnation,
  lane: Lane<Out>,
  transmit: (packet: Out) => void,
): Side<Out, In> {
  let open = true;
  let take: (packet: In) => void = () => undefined;
  let told: () => void = () => undefined;
  const shut = (): boolean => {
    const was = open && of.alive;
    open = false;
    lane.close(of.alive);
    return was;
  };
  return {
    end: {
      of,
      get open() {
        return open && of.alive;
      },
      get waitingBytes() {
        return lane.waitingBytes();
      },
      send: (packet) => {
        if (open && of.alive) transmit(packet);
      },
      close: () => {
        if (!open || !of.alive) return;
        lane.fin();
        shut();
        told();
      },
      listen: (next) => {
        take = next;
      },
      onClose: (next) => {
        told = next;
      },
      room: (bytesMax) => (open && of.alive ? lane.room(bytesMax) : Promise.resolve(false)),
    },
    take: (packet) => take(packet),
    learn: () => {
      if (shut()) told();
    },
    forget: () => void shut(),
  };
}

/** One direction. */
interface Lane<P> {
  /** `after`: once it arrived. */
  push(packet: P, extraMs?: number, after?: () => void): void;
  /** Arrives by itself, later than what is sent after it. */
  straggle(packet: P, extraMs: number): void;
  fin(): void;
  pump(): void;
  waitingBytes(): number;
  room(bytesMax: number): Promise<boolean>;
  /** Its sender is done; nothing is taken back. */
  close(tell: boolean): void;
}

interface Waiting<P> {
  atMs: number;
  /** Null: the end. */
  packet: P | null;
  after?: (() => void) | undefined;
}

function createLane<P extends Packet>(
  parts: WireParts,
  name: string,
  to: Incarnation,
  receiver: {
    isOpen(): boolean;
    /** As what its arrival is a call of the receiver, or null where it is none. */
    operationOf(packet: P): string | null;
    take(packet: P): void;
    fin(): void;
  },
): Lane<P> {
  const { world, id } = parts;
  const queue: Waiting<P>[] = [];
  const rooms = new Set<{ bytesMax: number; go(room: boolean): void }>();
  let sent = 0;
  let lastAtMs = 0;
  let bytes = 0;
  let busy = false;

  const arrivalMs = (extraMs: number): number => {
    sent += 1;
    return world.nowMs() + extraMs + latencyMs(world, 4, 90, 'link', id, name, sent);
  };
  const arrive = async (packet: P): Promise<void> => {
    const operation = receiver.operationOf(packet);
    if (operation === null) receiver.take(packet);
    else {
      await world.call(to, operation, describe(packet), 0, () => {
        if (receiver.isOpen()) receiver.take(packet);
      });
    }
  };
  const left = (one: Waiting<P>): void => {
    bytes -= one.packet === null ? 0 : bytesOf(one.packet);
    for (const waiting of [...rooms]) {
      if (bytes > waiting.bytesMax) continue;
      rooms.delete(waiting);
      waiting.go(true);
    }
  };
  const step = async (): Promise<void> => {
    const head = queue[0];
    if (head === undefined || !receiver.isOpen() || parts.blocked()) {
      busy = false;
      return;
    }
    queue.shift();
    left(head);
    if (head.packet === null) receiver.fin();
    else await arrive(head.packet);
    head.after?.();
    busy = false;
    pump();
  };
  const pump = (): void => {
    const head = queue[0];
    if (busy || head === undefined || !receiver.isOpen() || parts.blocked()) return;
    busy = true;
    world.later(Math.max(0, head.atMs - world.nowMs()), () => void step());
  };
  const enqueue = (one: Waiting<P>): void => {
    lastAtMs = Math.max(lastAtMs, one.atMs);
    queue.push({ ...one, atMs: lastAtMs });
    bytes += one.packet === null ? 0 : bytesOf(one.packet);
    pump();
  };

  return {
    push: (packet, extraMs = 0, after) => enqueue({ atMs: arrivalMs(extraMs), packet, after }),
    straggle: (packet, extraMs) => {
      world.later(arrivalMs(extraMs) - world.nowMs(), () => {
        if (parts.blocked()) enqueue({ atMs: world.nowMs(), packet });
        else if (receiver.isOpen()) void arrive(packet);
      });
    },
    fin: () => enqueue({ atMs: arrivalMs(0), packet: null }),
    pump,
    waitingBytes: () => bytes,
    room: (bytesMax) =>
      bytes <= bytesMax
        ? Promise.resolve(true)
        : new Promise((resolve) => rooms.add({ bytesMax, go: resolve })),
    close: (tell) => {
      // Nobody is left to be told in a life that is over.
      if (tell) for (const waiting of rooms) waiting.go(false);
      rooms.clear();
    },
  };
}
