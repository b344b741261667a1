// Why: a link between an agent and its registry that is as slow, as far and as broken as a test wants it: one for all
// connections, cut by chance from a seed. Trusts: nothing; it carries bytes. Must never: outlive its test.

import type { AddressInfo } from 'node:net';
import { connect, createServer, type Socket } from 'node:net';
import { chance } from './chance.ts';

export interface LinkTerms {
  /** Each way; null: as fast as it goes. */
  bytesPerSecond: number | null;
  /** Each way. */
  delayMs: number;
  /** All connections are cut after this long on average; null: never. */
  cutEveryMs: number | null;
  /** Nobody gets through, and whoever was through is cut off. */
  closed?: boolean;
}

/** What went over one connection, each way, as it came to the link. */
export interface LinkCapture {
  up: Uint8Array;
  down: Uint8Array;
}

export interface SlowLink {
  port: number;
  use(terms: LinkTerms): void;
  /** Bytes that came out of the link so far, at the device and at the registry. */
  carried(): { down: number; up: number };
  cuts(): number;
  /** Of every connection so far, where the link was made with `capture`. */
  captured(): LinkCapture[];
  close(): Promise<void>;
}

/** What waits before the link, for each connection and way; a router's buffer of a moment. */
const waitingBytesMax = 16 * 1024;
const packetBytes = 1_400;
/** A fast link carries more at a time, or timers would be its limit. */
const packetMs = 4;

export async function slowLink(
  targetPort: number,
  seed: number,
  options: { capture?: boolean } = {},
): Promise<SlowLink> {
  const captures: { up: Buffer[]; down: Buffer[] }[] = [];
  let terms: LinkTerms = { bytesPerSecond: null, delayMs: 0, cutEveryMs: null };
  const carried = { down: 0, up: 0 };
  const freeAtMs = { down: 0, up: 0 };
  const sockets = new Set<Socket>();
  const draw = chance(seed);
  let cuts = 0;
  let cutTimer: NodeJS.Timeout | null = null;

  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const cutLater = (): void => {
    if (cutTimer !== null) clearTimeout(cutTimer);
    cutTimer = null;
    const { cutEveryMs } = terms;
    if (cutEveryMs === null) return;
    cutTimer = setTimeout(
      () => {
        if (sockets.size > 0) cuts += 1;
        cut();
        cutLater();
      },
      -Math.log(1 - draw()) * cutEveryMs,
    );
  };

  function carry(from: Socket, to: Socket, way: 'down' | 'up', capture: Buffer[] | undefined): void {
    const waiting: Buffer[] = [];
    let waitingBytes = 0;
    let sending = false;
    const next = (): void => {
      const chunk = waiting.shift();
      sending = chunk !== undefined;
      if (chunk === undefined || from.destroyed || to.destroyed) return;
      const { bytesPerSecond, delayMs } = terms;
      const most =
        bytesPerSecond === null ? chunk.length : Math.max(packetBytes, (bytesPerSecond * packetMs) / 1_000);
      const packet = chunk.subarray(0, most);
      if (packet.length < chunk.length) waiting.unshift(chunk.subarray(packet.length));
      waitingBytes -= packet.length;
      if (waitingBytes < waitingBytesMax) from.resume();
      const now = performance.now();
      freeAtMs[way] =
        Math.max(now, freeAtMs[way]) +
        (bytesPerSecond === null ? 0 : (packet.length / bytesPerSecond) * 1_000);
      const sent = (): void => {
        if (from.destroyed || to.destroyed) return;
        const arrive = (): void => {
          if (to.destroyed) return;
          carried[way] += packet.length;
          to.write(packet);
        };
        if (delayMs === 0) arrive();
        else setTimeout(arrive, delayMs);
        next();
      };
      const leftMs = freeAtMs[way] - now;
      if (leftMs < 1) sent();
      else setTimeout(sent, leftMs);
    };
    from.on('data', (chunk: Buffer) => {
      capture?.push(chunk);
      waiting.push(chunk);
      waitingBytes += chunk.length;
      if (waitingBytes >= waitingBytesMax) from.pause();
      if (!sending) next();
    });
  }

  const server = createServer((device) => {
    if (terms.closed === true) {
      device.destroy();
      return;
    }
    const capture = options.capture === true ? { up: [], down: [] } : undefined;
    if (capture !== undefined) captures.push(capture);
    const registry = connect(targetPort, '127.0.0.1');
    for (const socket of [device, registry]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        device.destroy();
        registry.destroy();
      });
    }
    carry(registry, device, 'down', capture?.down);
    carry(device, registry, 'up', capture?.up);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    use: (next) => {
      terms = next;
      if (next.closed === true) cut();
      cutLater();
    },
    carried: () => ({ ...carried }),
    cuts: () => cuts,
    captured: () => captures.map(({ up, down }) => ({ up: Buffer.concat(up), down: Buffer.concat(down) })),
    close: async () => {
      if (cutTimer !== null) clearTimeout(cutTimer);
      terms = { ...terms, cutEveryMs: null };
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      cut();
      await closed;
    },
  };
}
