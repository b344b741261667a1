// Why: whatever a client sends, it gets a refusal, the next client a right answer, and the agent does not grow.
// Needs no data folder. Trusts: hostile-requests.ts. Must never: talk to a server in its own process, whose end or
// growth it could not tell from its own.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { unwrap } from '../../shared/kernel/errors.ts';
import {
  encodeBinaryRequest,
  jsonLengthHeader,
  parseBinaryRequest,
  parseBinaryResponse,
} from '../../shared/wire/oip-binary.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { goodBody, goodRequest, type Hostile, hostileRequests, oddRequests } from './hostile-requests.ts';
import { type LoneServer, startLoneServer } from './lone-server.ts';
import { post } from './staging.ts';

const MiB = 1024 * 1024;

describe('hostile clients', () => {
  let server: LoneServer;
  before(async () => {
    server = await startLoneServer();
  });
  after(() => server.close());

  /** What comes back until the server closes; its end may be a reset. */
  const send = (bytes: Buffer, gone = false): Promise<string> =>
    new Promise((resolve) => {
      const socket = connect({
        port: Number(new URL(server.url).port),
        host: '127.0.0.1',
        allowHalfOpen: true,
      });
      let answer = '';
      socket.setEncoding('latin1').on('data', (text: string) => {
        answer += text;
      });
      // A server that refuses early may close before it has read everything.
      socket.on('error', () => undefined);
      socket.on('end', () => socket.end());
      socket.on('close', () => resolve(answer));
      if (gone) socket.end(bytes);
      else socket.write(bytes);
    });

  const statusOf = (answer: string): number | null => {
    const plain = answer.replace(/^HTTP\/1\.1 100 Continue\r\n\r\n/, '');
    const status = /^HTTP\/1\.1 (\d{3}) /.exec(plain)?.[1];
    return status === undefined ? null : Number(status);
  };

  const expectGood = async (bytes: Buffer, after: string): Promise<void> => {
    const answer = await send(bytes);
    assert.equal(statusOf(answer), 200, `${after}: ${answer.slice(0, 400)}`);
    assert.ok(answer.includes('"data":[9007199254740993,-1]'), after);
    assert.equal(server.ended(), null, after);
  };

  /** What is wrong with the answer, null where it is a refusal as it should be. */
  const faultOf = async ({ name, bytes, status = [400], gone = false }: Hostile): Promise<string | null> => {
    const answer = await send(bytes, gone);
    const got = statusOf(answer);
    const said = `${name}: ${got}, expected ${status}; ${answer.slice(0, 300)}`;
    if (!status.includes(got)) return said;
    if (got === null) return null;
    const coded = /\r\nx-lepton-code: [a-z-]+\r\n/i.test(answer);
    return coded && /\r\n\r\n\{"error":".+"\}/.test(answer) ? null : said;
  };

  const rssBytes = (): number => {
    const status = readFileSync(`/proc/${server.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
  };

  test('each is refused, and the next client is served', async (t) => {
    assert.ok(hostileRequests.length > 200);
    const names = hostileRequests.map(({ name }) => name);
    assert.deepEqual(
      names.filter((name, at) => names.indexOf(name) !== at),
      [],
    );
    const slow = hostileRequests.filter(({ slow }) => slow === true);
    const others = hostileRequests.filter(({ slow }) => slow !== true);
    const faults: (string | null)[] = [];
    for (const hostile of others) {
      faults.push(await faultOf(hostile));
      await expectGood(goodRequest, hostile.name);
    }
    // They wait for their time anyway.
    faults.push(...(await Promise.all(slow.map(faultOf))));
    assert.deepEqual(
      faults.filter((fault) => fault !== null),
      [],
    );
    await expectGood(goodRequest, 'the slow ones');
    t.diagnostic(`${hostileRequests.length} hostile requests`);
  });

  test('what is only odd is served', async () => {
    for (const { name, bytes } of oddRequests) await expectGood(bytes, name);
  });

  test('an answer under way is not mixed with the refusal of what follows', async () => {
    const keep = Buffer.from(goodRequest.toString('latin1').replace('Connection: close\r\n', ''), 'latin1');
    const answer = await send(Buffer.concat([keep, keep, Buffer.from('no HTTP\r\n\r\n')]));
    for (const one of answer.split(/(?=HTTP\/1\.1 )/).filter((part) => part !== '')) {
      const status = statusOf(one);
      assert.ok(status === 200 || status === 400, answer);
      assert.equal(one.includes('"data":[9007199254740993,-1]'), status === 200, answer);
    }
    await expectGood(goodRequest, 'a broken pipeline');
  });

  test('many large bodies at once are refused or served, none breaks the server', async () => {
    // On a busy machine some do not arrive within their time; that is a refusal too.
    const body = goodBody.padEnd(3 * MiB);
    const statuses = await Promise.all(
      Array.from(
        { length: 24 },
        async () => (await post(`${server.url}/v2/models/ints/infer`, body)).response.status,
      ),
    );
    assert.ok(
      statuses.every((status) => status === 200 || status === 503 || status === 408),
      `${statuses}`,
    );
    await expectGood(goodRequest, 'many large bodies');
  });

  test('a mutilated binary request is refused, or answered as it reads', async () => {
    const url = `${server.url}/v2/models/pair/infer`;
    const inputs: Tensor[] = ['x1', 'x2'].map((name) => ({
      name,
      datatype: 'FP32',
      shape: [3],
      data: Float32Array.of(1, 2, 3),
    }));
    const message = encodeBinaryRequest({ inputs, parameters: { binary_data_output: true } });
    const whole = Buffer.concat(message.pieces);
    const edit = fc.record({ at: fc.nat(whole.length - 1), byte: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(edit, { maxLength: 3 }),
        fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: -9, max: 9 })),
        fc.oneof({ weight: 3, arbitrary: fc.constant(whole.length) }, fc.nat(whole.length)),
        async (edits, shift, length) => {
          const body = Buffer.from(whole);
          for (const { at, byte } of edits) body[at] = byte;
          const sent = body.subarray(0, length);
          const jsonBytes = message.jsonBytes + shift;
          const { response, bytes } = await post(url, sent, { [jsonLengthHeader]: String(jsonBytes) });
          const read = parseBinaryRequest(sent, jsonBytes);
          if (response.status !== 200) {
            assert.ok([400, 501].includes(response.status), `${response.status}`);
            return;
          }
          const given = unwrap(read).inputs;
          const answered = response.headers.get(jsonLengthHeader);
          if (answered === null) return;
          for (const { name, data } of unwrap(parseBinaryResponse(bytes, Number(answered))).outputs) {
            const want = given.find((tensor) => tensor.name === name.replace('y', 'x'));
            assert.deepEqual(Buffer.from((data as Float32Array).buffer), bits(want));
          }
        },
      ),
      { numRuns: 400 },
    );
    await expectGood(goodRequest, 'mutilated requests');
  });

  const bits = (tensor: Tensor | undefined): Buffer => {
    assert.ok(tensor !== undefined);
    const { buffer, byteOffset, byteLength } = tensor.data as Float32Array;
    return Buffer.from(buffer.slice(byteOffset, byteOffset + byteLength));
  };

  test('the server does not grow', { skip: process.platform !== 'linux' && 'needs /proc' }, async (t) => {
    const fast = hostileRequests.filter(({ slow }) => slow !== true);
    const faults: (string | null)[] = [];
    const round = async (): Promise<number> => {
      for (let at = 0; at < fast.length; at += 4)
        faults.push(...(await Promise.all(fast.slice(at, at + 4).map(faultOf))));
      await expectGood(goodRequest, 'a round');
      return rssBytes();
    };
    const before = Math.max(await round(), await round());
    let last = 0;
    for (let count = 0; count < 6; count++) last = await round();
    t.diagnostic(
      `${6 * fast.length} more requests: ${Math.round(before / MiB)} MiB before, ${Math.round(last / MiB)} after`,
    );
    assert.ok(faults.every((fault) => fault === null));
    assert.ok(last < before + 64 * MiB, `${before} bytes before, ${last} after`);
  });
});
