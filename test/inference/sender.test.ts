// Why: frames are built in memory that is used again; what a slow reader has not taken yet must stay as it was.
// Trusts: the system's sockets. Must never: count on how much of a write the system takes at once.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { createSender } from '../../agent/inference/sender.ts';

/** Both ends of a connection; the first to be read from only when the test does. */
async function pair(): Promise<{ far: Socket; near: Socket }> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [far] = (await once(server, 'connection')) as [Socket];
  after(() => {
    near.destroy();
    far.destroy();
    server.close();
  });
  return { far, near };
}

test('frames arrive whole and in order, at once or together, also where the reader is slow', async () => {
  const { far, near } = await pair();
  const sender = createSender(near);
  const sent: Buffer[] = [];
  // Far more than the system holds for a reader that does not read.
  for (let bytes = 0, index = 0; bytes < 24 * 1024 * 1024; index++) {
    const length = index % 50 === 0 ? 200_000 : 8 + ((index * 7919) % 9_000);
    const frame = sender.allocate(length).fill(index & 0xff);
    sent.push(Buffer.from(frame));
    if (index % 5 === 0) sender.now([frame]);
    else sender.soon([frame]);
    bytes += length;
  }
  const expected = Buffer.concat(sent);
  let at = 0;
  far.on('data', (chunk: Buffer) => {
    assert.ok(chunk.equals(expected.subarray(at, at + chunk.length)), `bytes behind ${at}`);
    at += chunk.length;
    if (at === expected.length) far.destroy();
  });
  far.resume();
  await once(far, 'close');
  assert.equal(at, expected.length);
});
