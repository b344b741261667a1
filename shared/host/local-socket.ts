// Why: a Unix socket of this user for programs on the same device.
// Trusts: file permissions. Must never: leave the file behind, or let another user in.

import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { FleetError } from '../kernel/errors.ts';

/** A Unix socket's path is cut at 108 bytes by the kernel. */
const pathBytesMax = 104;

export interface LocalSocket {
  /** Ends every connection. */
  close(): void;
}

/** Faults: `config-invalid` (the path is too long), `disk-io`. Later failures go to `onError`. */
export function listenLocally(
  path: string,
  options: {
    connectionsMax: number;
    onConnection(socket: Socket): void;
    onError(error: Error): void;
  },
): LocalSocket {
  if (Buffer.byteLength(path) > pathBytesMax)
    throw new FleetError('config-invalid', `${path} is longer than ${pathBytesMax} bytes`, {
      hint: 'use a state folder with a shorter path',
    });
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    // Left by a process that was killed.
    rmSync(path, { force: true });
  } catch (cause) {
    throw new FleetError('disk-io', `cannot make ${path}`, { cause });
  }
  const sockets = new Set<Socket>();
  // Whoever has sent everything still wants the answers.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    if (sockets.size >= options.connectionsMax) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    // A reader that goes away is seen where its samples are read.
    socket.on('error', () => undefined);
    options.onConnection(socket);
  });
  server.on('error', options.onError);
  server.listen(path, () => chmodSync(path, 0o600));
  return {
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      rmSync(path, { force: true });
    },
  };
}
