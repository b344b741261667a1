// Why: counts what two programs say to each other, with and without what TLS adds.
// Trusts: TLS 1.3's record format (RFC 8446 §5.1). Must never: read what is said.

import { connect, createServer, type Socket } from 'node:net';

export interface TlsMeter {
  port: number;
  /** Bytes inside the records so far, each way; handshakes included. */
  bytes(): { up: number; down: number };
  /** Bytes on the sockets, both ways. */
  wireBytes(): number;
}

/** Type and length of a record, its inner content type and its tag. */
const headBytes = 5;
const insideOverhead = 17;

/** Adds up the content of records as they go by. */
function counter(): { add(chunk: Uint8Array): void; total(): number } {
  let pending = Buffer.alloc(0);
  let total = 0;
  return {
    add: (chunk) => {
      pending = Buffer.concat([pending, chunk]);
      while (pending.length >= headBytes) {
        const length = pending.readUInt16BE(3);
        if (pending.length < headBytes + length) return;
        total += Math.max(0, length - insideOverhead);
        pending = pending.subarray(headBytes + length);
      }
    },
    total: () => total,
  };
}

/** A port that leads to `target`. */
export async function tlsMeter(
  t: { after(end: () => Promise<void>): void },
  target: number,
): Promise<TlsMeter> {
  let wire = 0;
  const counters: { up: ReturnType<typeof counter>; down: ReturnType<typeof counter> }[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((from) => {
    const to = connect(target, '127.0.0.1');
    const both = { up: counter(), down: counter() };
    counters.push(both);
    for (const socket of [from, to]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        from.destroy();
        to.destroy();
      });
    }
    from.on('data', (chunk) => {
      wire += chunk.length;
      both.up.add(chunk);
      to.write(chunk);
    });
    to.on('data', (chunk) => {
      wire += chunk.length;
      both.down.add(chunk);
      from.write(chunk);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
  const address = server.address();
  if (address === null || typeof address !== 'object') throw new Error('no port');
  const sum = (way: 'up' | 'down'): number => counters.reduce((all, one) => all + one[way].total(), 0);
  return {
    port: address.port,
    bytes: () => ({ up: sum('up'), down: sum('down') }),
    wireBytes: () => wire,
  };
}
