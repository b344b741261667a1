// Why: the lines between regions in the simulated world: who reaches whose door, what is lost on the way, and what a
// region of another mind makes of its answers. Trusts: the world for time, faults and lives.
// Must never: let an answer arrive of which nothing was asked, or tell more than a real line would.

import type { DoorAnswer, DoorHandler, DoorPeer, RegionLine } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type Incarnation, latencyMs, type World } from '../world.ts';

/** Everything that crosses a line, for whoever looks for what must not. */
export interface Carried {
  from: string;
  to: string;
  path: string;
  bytes: Uint8Array;
}

export interface Doors {
  /** The line of one life of a node, with its key (hex). */
  line(of: Incarnation, publicKey: string): RegionLine;
  /** The door of a node, under its address, from now on. */
  serve(of: Incarnation, door: { url: string; publicKey: string; handler: DoorHandler }): void;
  /** Nothing passes between these two for so long. */
  cut(a: string, b: string, ms: number): void;
  /** What this node answers is changed from now on; null: no more. */
  twist(node: string, change: ((path: string, bytes: Uint8Array) => Uint8Array) | null): void;
  /** Ends every cut and all twisting. */
  heal(): void;
  onCarried(listener: (carried: Carried) => void): void;
}

interface Door {
  of: Incarnation;
  publicKey: string;
  handler: DoorHandler;
}

export function createDoors(world: World): Doors {
  const doors = new Map<string, Door>();
  const cuts = new Map<string, number>();
  const twists = new Map<string, (path: string, bytes: Uint8Array) => Uint8Array>();
  const listeners: ((carried: Carried) => void)[] = [];
  let asked = 0;

  const pair = (a: string, b: string): string => [a, b].sort().join(' ');
  const apart = (a: string, b: string): boolean => (cuts.get(pair(a, b)) ?? 0) > world.nowMs();
  const unreachable = (words: string): Result<never> => refuse('region-unreachable', `simulated: ${words}`);
  const carry = (from: string, to: string, path: string, bytes: Uint8Array): void => {
    for (const listener of listeners) listener({ from, to, path, bytes });
  };

  async function ask(
    of: Incarnation,
    publicKey: string,
    peer: DoorPeer,
    { method, path, body = new Uint8Array(), bytesMax, timeoutMs }: Parameters<RegionLine['ask']>[1],
  ): Promise<Result<DoorAnswer>> {
    asked += 1;
    const number = asked;
    const way = (name: string): number => latencyMs(world, 5, 80, 'door', name, of.node, number);
    const door = await world.call(of, 'door.ask', `${method} ${peer.url}${path}`, way('there'), () =>
      doors.get(peer.url),
    );
    if (door?.of.alive !== true || apart(of.node, door.of.node)) return unreachable(`${peer.url} is away`);
    if (world.fault('link.unreachable', of.node, peer.url)) return unreachable('no connection');
    if (door.publicKey !== peer.publicKey) return refuse('region-untrusted', 'another key answers');
    carry(of.node, door.of.node, path, body);
    const url = new URL(path, 'https://door.invalid');
    const request = { publicKey, method, path: url.pathname, query: url.searchParams, body };
    const work = [door.handler(request)];
    // A retransmission of the line below: the other end does it twice, and only one answer is heard.
    if (world.fault('link.duplicate', of.node, path)) work.push(door.handler(request));
    const timer = world.clock(of).timer(timeoutMs);
    const late = timer.done.then(() => null);
    const answer = await Promise.race([Promise.all(work), late]);
    timer.cancel();
    const [first] = answer ?? [];
    if (first === undefined) return unreachable('no answer in time');
    const lost = world.fault('link.drop', of.node, path);
    const back = await world.call(of, 'door.answer', `${first.status} ${path}`, way('back'), () => first);
    if (lost || apart(of.node, door.of.node)) return unreachable('the answer was lost');
    const bytes = twists.get(door.of.node)?.(url.pathname, back.bytes) ?? back.bytes;
    carry(door.of.node, of.node, path, bytes);
    if (bytes.length > bytesMax) return refuse('region-answer-invalid', 'more than was asked for');
    return ok({ status: back.status, bytes, wireBytes: bytes.length });
  }

  return {
    line: (of, publicKey) => ({ ask: (peer, one) => ask(of, publicKey, peer, one) }),
    serve: (of, { url, publicKey, handler }) => void doors.set(url, { of, publicKey, handler }),
    cut(a, b, ms) {
      world.note(`no line between ${a} and ${b} for ${ms} ms`);
      world.mark({ node: a, kind: 'link', text: `no line to ${b}` });
      cuts.set(pair(a, b), world.nowMs() + ms);
    },
    twist(node, change) {
      world.note(`${node} ${change === null ? 'answers as it should' : 'changes what it answers'}`);
      if (change === null) twists.delete(node);
      else twists.set(node, change);
    },
    heal() {
      cuts.clear();
      twists.clear();
    },
    onCarried: (listener) => void listeners.push(listener),
  };
}
