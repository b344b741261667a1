// Why: a large input goes to the model's process while it still comes. Whatever becomes of it then, nobody gets another
// one's numbers, and no process ends for it. Needs no data folder. Trusts: a made echo model.
// Must never: send a body so fast that nothing of it could have gone ahead.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { AgentHttp } from '../../agent/api/http.ts';
import { startModelProcess } from '../../agent/inference/process.ts';
import { partBytes } from '../../agent/inference/shared-file.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { encodeBinaryRequest, jsonLengthHeader, parseBinaryResponse } from '../../shared/wire/oip-binary.ts';
import { modelFile } from '../onnx/models.ts';
import { openStage, type Stage, startHttp } from './staging.ts';

const MiB = 1024 * 1024;

function numbers(bytes: number, seed: number): Float32Array {
  return Float32Array.from({ length: bytes / 4 }, (_, index) => ((index * 7 + seed * 1_013) % 65_521) - seed);
}

function requestOf(data: Float32Array): { head: string; body: Buffer } {
  const message = encodeBinaryRequest({
    inputs: [{ name: 'x', datatype: 'FP32', shape: [data.length], data }],
    parameters: { binary_data_output: true },
  });
  const body = Buffer.concat(message.pieces);
  const lines = ['Host: x', `Content-Length: ${body.length}`, `${jsonLengthHeader}: ${message.jsonBytes}`];
  return { head: `POST /v2/models/echo/infer HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`, body };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe('inputs that go ahead', () => {
  let stage: Stage;
  let http: AgentHttp;
  const sockets = new Set<Socket>();
  before(async () => {
    stage = openStage();
    const value = (name: string) => ({ name, elemType: 1, shape: ['n'] });
    const bytes = modelFile({ inputs: [value('x')], outputs: [value('y')] });
    await stage.serve('echo', [{ path: 'model.onnx', role: 'model', bytes }]);
    http = await startHttp(stage);
  });
  after(async () => {
    for (const socket of sockets) socket.destroy();
    await http.close();
    await stage.close();
  });

  const open = (): Socket => {
    const socket = connect({ port: Number(new URL(http.url).port), host: '127.0.0.1', noDelay: true });
    socket.on('error', () => undefined);
    sockets.add(socket);
    return socket;
  };
  /** In pieces with a breath between, so that what came goes ahead before the rest is there. */
  const send = async (socket: Socket, { head, body }: { head: string; body: Buffer }, upTo = body.length) => {
    socket.write(head);
    for (let at = 0; at < upTo; at += 700_000) {
      socket.write(body.subarray(at, Math.min(upTo, at + 700_000)));
      await pause(4);
    }
  };
  const answerOn = async (socket: Socket): Promise<Float32Array> => {
    let came = Buffer.alloc(0);
    for (;;) {
      const [chunk] = (await once(socket, 'data')) as [Buffer];
      came = Buffer.concat([came, chunk]);
      const end = came.indexOf('\r\n\r\n');
      if (end < 0) continue;
      const head = came.toString('latin1', 0, end);
      assert.match(head, /^HTTP\/1\.1 200 /);
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1]);
      if (came.length < end + 4 + length) continue;
      const jsonBytes = Number(/inference-header-content-length: (\d+)/i.exec(head)?.[1]);
      const body = new Uint8Array(came.subarray(end + 4));
      const [output] = unwrap(parseBinaryResponse(body, jsonBytes)).outputs;
      return output?.data as Float32Array;
    }
  };
  const ask = async (socket: Socket, data: Float32Array): Promise<void> => {
    const answered = answerOn(socket);
    await send(socket, requestOf(data));
    assert.deepEqual(await answered, data);
  };
  const pid = (): number | null => stage.host.models()[0]?.pid ?? null;

  test('one after the other on a connection, of many sizes', async () => {
    const socket = open();
    let seed = 0;
    for (const size of [3 * MiB, MiB, 2 * partBytes, 2 * partBytes + 4, 5 * MiB + 20, 64, 15 * MiB])
      await ask(socket, numbers(size, ++seed));
  });

  test('several at once and small ones between: each gets its own', async () => {
    await Promise.all(
      Array.from({ length: 6 }, async (_, client) => {
        const socket = open();
        for (let round = 0; round < 4; round++)
          await ask(socket, numbers(client % 3 === 0 ? 400 : (2 + client) * MiB, client * 10 + round));
      }),
    );
  });

  test('who leaves in the middle takes nobody along', async () => {
    const before = pid();
    for (let round = 0; round < 6; round++) {
      const leaver = open();
      // More than is kept of the file's pages, so that they are given back while the process may still read them.
      await send(leaver, requestOf(numbers(15 * MiB, 900 + round)), 13 * MiB);
      leaver.destroy();
      await ask(open(), numbers(3 * MiB, 100 + round));
    }
    assert.equal(pid(), before);
  });

  test('a body that is no request after all is refused, and the next is answered', async () => {
    const before = pid();
    const socket = open();
    const good = requestOf(numbers(3 * MiB, 50));
    // The right length under another shape.
    const body = Buffer.from(good.body);
    body.write('"shape":[786433]', body.indexOf('"shape":[786432]'));
    await send(socket, { head: good.head, body });
    const [refusal] = (await once(socket, 'data')) as [Buffer];
    assert.match(refusal.toString('latin1'), /^HTTP\/1\.1 400 /);
    await ask(socket, numbers(3 * MiB, 51));
    assert.equal(pid(), before);
  });
});

test('a process takes one input ahead at a time, and another tensor than was told of is read anew', async () => {
  const child = startModelProcess(systemClock);
  const stage = openStage();
  const value = (name: string) => ({ name, elemType: 1, shape: ['n'] });
  const bytes = modelFile({ inputs: [value('x')], outputs: [value('y')] });
  const release = stage.stage('echo', [{ path: 'model.onnx', role: 'model', bytes }]);
  const [file] = release.files;
  try {
    const load = {
      kind: 'load' as const,
      modelPath: `${stage.folder}/${file?.diskPath}`,
      external: null,
      threads: 1,
      providers: ['cpu'],
    };
    unwrap(await child.ask(load, [], 10_000));
    const whole = numbers(4 * MiB, 1);
    const raw = new Uint8Array(whole.buffer);
    const run = async (data: Float32Array, ahead?: Parameters<typeof child.ask>[3]): Promise<void> => {
      const inputs = [{ name: 'x', datatype: 'FP32' as const, shape: [data.length], data }];
      const told = unwrap(await child.ask({ kind: 'run', outputs: ['y'] }, inputs, 10_000, ahead));
      assert.deepEqual(told.tensors[0]?.data, data);
    };
    for (const filled of [0, 100, partBytes, partBytes + 1, 3 * MiB, 4 * MiB]) {
      const ahead = child.ahead(raw);
      assert.ok(ahead !== null);
      assert.equal(child.ahead(raw), null);
      for (let at = 0; at <= filled; at += 300_000) ahead.ready(at);
      ahead.ready(filled);
      await run(whole, ahead);
      // It was used: neither of them does anything any more.
      ahead.ready(4 * MiB);
      ahead.cancel();
      const other = child.ahead(raw);
      assert.ok(other !== null);
      other.ready(2 * MiB);
      await run(numbers(4 * MiB, 2), other);
      await run(numbers(3 * MiB, 3), other);
      const given = child.ahead(raw);
      assert.ok(given !== null);
      given.ready(3 * MiB);
      await run(numbers(2 * MiB, 4));
      given.cancel();
      await run(whole);
    }
    assert.equal(child.ahead(new Uint8Array(17 * MiB)), null);
    await run(whole);
    // Given up while the process is busy: its pages are given back before the process comes to read them.
    for (let round = 0; round < 30; round++) {
      const busy = run(numbers(MiB, round));
      const ahead = child.ahead(new Uint8Array(16 * MiB));
      ahead?.ready(15 * MiB);
      ahead?.cancel();
      await busy;
      await run(numbers(64, round));
    }
  } finally {
    child.kill();
    await child.exited;
    assert.equal(child.ahead(new Uint8Array(8)), null);
    await stage.close();
  }
});
