// Why: the extensions of the protocol as their clients use them: raw tensors both ways, packed bodies, statistics,
// deadlines. Needs no data folder. Trusts: made models that give back what they get. Must never: time anything.

import assert from 'node:assert/strict';
import { Agent, request as httpRequest } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { deflateSync, gunzipSync, gzipSync, inflateSync } from 'node:zlib';
import fc from 'fast-check';
import type { AgentHttp } from '../../agent/api/http.ts';
import type { InferCall } from '../../agent/inference/host.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { refuse } from '../../shared/kernel/result.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import { statisticsSchema } from '../../shared/wire/oip.ts';
import { encodeBinaryRequest, jsonLengthHeader, parseBinaryResponse } from '../../shared/wire/oip-binary.ts';
import { encodeInferRequest, type InferRequest, parseInferResponse } from '../../shared/wire/oip-json.ts';
import { elementBytes, type Tensor, tensorFromBytes } from '../../shared/wire/tensors.ts';
import { modelFile } from '../onnx/models.ts';
import { anyTensor, withoutNanBits } from '../support/tensors.ts';
import { openStage, post, type Stage, startHttp } from './staging.ts';

/** By TensorProto.DataType. */
const elemTypes: [Datatype, number][] = [
  ['FP32', 1],
  ['UINT8', 2],
  ['INT8', 3],
  ['UINT16', 4],
  ['INT16', 5],
  ['INT32', 6],
  ['INT64', 7],
  ['BYTES', 8],
  ['BOOL', 9],
  ['FP16', 10],
  ['FP64', 11],
  ['UINT32', 12],
  ['UINT64', 13],
];

/** One input and one output of each type, any length. */
const everyType = modelFile({
  inputs: elemTypes.map(([datatype, elemType]) => ({ name: `x${datatype}`, elemType, shape: [datatype] })),
  outputs: elemTypes.map(([datatype, elemType]) => ({ name: `y${datatype}`, elemType, shape: [datatype] })),
  nodes: elemTypes.map(([datatype]) => ({
    opType: 'Identity',
    inputs: [`x${datatype}`],
    outputs: [`y${datatype}`],
  })),
});
const single = (elemType: number, shape: (number | string)[]): Uint8Array =>
  modelFile({ inputs: [{ name: 'x', elemType, shape }], outputs: [{ name: 'y', elemType, shape }] });

describe('extensions of the protocol', () => {
  let stage: Stage;
  let http: AgentHttp;
  const calls: InferCall[] = [];
  const undo: (() => Promise<void>)[] = [];
  before(async () => {
    stage = openStage();
    undo.push(stage.close);
    const serve = (as: string, bytes: Uint8Array) =>
      stage.serve(as, [{ path: 'model.onnx', role: 'model', bytes }]);
    await serve('every', everyType);
    await serve('floats', single(1, ['n', 2]));
    await serve('half', single(10, [3]));
    await serve('text', single(8, ['n']));
    await serve('again', single(1, ['n', 2]));
    await serve('truth', single(9, ['n']));
    await serve('free', single(1, ['n', 'm']));
    http = await startHttp(stage, {
      inference: {
        ...stage.host,
        infer: (as, version, call) => {
          calls.push(call);
          return stage.host.infer(as, version, call);
        },
      },
      serverName: 'a-name',
      serverExtensions: ['one', 'two'],
    });
    undo.push(http.close);
  });
  after(async () => {
    for (const step of undo.reverse()) await step();
  });
  const url = (model: string): string => `${http.url}/v2/models/${model}/infer`;
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');
  const identity = { 'accept-encoding': 'identity' };

  const askBinary = async (model: string, request: InferRequest) => {
    const message = encodeBinaryRequest(request);
    const headers = { ...identity, [jsonLengthHeader]: String(message.jsonBytes) };
    return post(url(model), Buffer.concat(message.pieces), headers);
  };
  const readBinary = ({ response, bytes }: Awaited<ReturnType<typeof post>>): Tensor[] => {
    assert.equal(response.status, 200, text(bytes));
    assert.equal(response.headers.get('content-type'), 'application/octet-stream');
    const jsonBytes = Number(response.headers.get(jsonLengthHeader));
    return unwrap(parseBinaryResponse(bytes, jsonBytes)).outputs;
  };

  test('tensors of every type come back the same, as JSON and binary', async () => {
    const tensorOf = ([datatype]: [Datatype, number]): fc.Arbitrary<Tensor> =>
      fc.nat(6).chain((count) => anyTensor(`x${datatype}`, datatype, [count]));
    await fc.assert(
      fc.asyncProperty(fc.tuple(...elemTypes.map(tensorOf)), async (inputs) => {
        const want = inputs.map((tensor) => ({ ...tensor, name: tensor.name.replace('x', 'y') }));
        const binary = readBinary(
          await askBinary('every', { inputs, parameters: { binary_data_output: true } }),
        );
        assert.deepEqual(binary, want);
        const { response, bytes } = await post(url('every'), encodeInferRequest({ inputs }), identity);
        assert.equal(response.status, 200, text(bytes));
        assert.deepEqual(unwrap(parseInferResponse(bytes)).outputs, want.map(withoutNanBits));
      }),
      { numRuns: 40 },
    );
  });

  const floats: Tensor = { name: 'x', datatype: 'FP32', shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) };

  test('the answer’s form: JSON unless asked, one by one or all', async () => {
    const forms = async (request: InferRequest) => {
      const { response, bytes } = await askBinary('floats', request);
      assert.equal(response.status, 200, text(bytes));
      return response.headers.get(jsonLengthHeader) === null ? 'json' : 'binary';
    };
    const inputs = [floats];
    assert.equal(await forms({ inputs }), 'json');
    assert.equal(await forms({ inputs, parameters: { binary_data_output: true } }), 'binary');
    assert.equal(
      await forms({ inputs, outputs: [{ name: 'y', parameters: { binary_data: true } }] }),
      'binary',
    );
    const overridden = [{ name: 'y', parameters: { binary_data: false } }];
    assert.equal(
      await forms({ inputs, parameters: { binary_data_output: true }, outputs: overridden }),
      'json',
    );
    // A request in JSON may ask for raw outputs too.
    const body = encodeInferRequest({ id: 'seven', inputs, parameters: { binary_data_output: true } });
    const answer = await post(url('floats'), body, identity);
    assert.deepEqual(readBinary(answer)[0]?.data, floats.data);
    const jsonBytes = Number(answer.response.headers.get(jsonLengthHeader));
    const head = JSON.parse(text(answer.bytes.subarray(0, jsonBytes))) as Record<string, unknown>;
    assert.deepEqual(head, {
      model_name: 'floats',
      model_version: '1.0.1',
      id: 'seven',
      outputs: [{ name: 'y', shape: [2, 2], datatype: 'FP32', parameters: { binary_data_size: 16 } }],
    });
    assert.equal(answer.bytes.length, jsonBytes + 16);
    assert.equal(answer.response.headers.get('x-lepton-release'), 'test/floats@1.0.1');
  });

  test('raw and JSON tensors mix in one request and one answer, outputs in the order asked for', async () => {
    const inputs = elemTypes.map(
      ([datatype]): Tensor => ({
        name: `x${datatype}`,
        datatype,
        shape: [1],
        data:
          datatype === 'BYTES'
            ? ['ä']
            : unwrap(tensorFromBytes('t', datatype, [1], new Uint8Array(elementBytes(datatype)).fill(1)))
                .data,
      }),
    );
    const outputs = [
      { name: 'yUINT64' },
      { name: 'yBYTES', parameters: { binary_data: true } },
      { name: 'yINT8' },
      { name: 'yFP64', parameters: { binary_data: true } },
    ];
    const message = encodeBinaryRequest({ inputs, outputs }, (name) => name.length % 2 === 0);
    const answer = await post(url('every'), Buffer.concat(message.pieces), {
      ...identity,
      [jsonLengthHeader]: String(message.jsonBytes),
    });
    const got = readBinary(answer);
    assert.deepEqual(
      got.map(({ name }) => name),
      outputs.map(({ name }) => name),
    );
    for (const tensor of got)
      assert.deepEqual(tensor.data, inputs.find(({ name }) => name === tensor.name.replace('y', 'x'))?.data);
  });

  test('a body of raw numbers alone is the model’s only input', async () => {
    const raw = (model: string, body: Uint8Array) =>
      post(url(model), body, { ...identity, [jsonLengthHeader]: '0' });
    const numbers = new Uint8Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer);
    const [output] = readBinary(await raw('floats', numbers));
    assert.deepEqual(output, {
      ...floats,
      name: 'y',
      shape: [3, 2],
      data: Float32Array.of(1, 2, 3, 4, 5, 6),
    });
    const halves = Uint8Array.of(0, 0x3c, 1, 0, 0xff, 0x7f);
    assert.deepEqual(readBinary(await raw('half', halves))[0]?.data, Uint16Array.of(0x3c00, 1, 0x7fff));
    assert.deepEqual(readBinary(await raw('text', Buffer.from('grün')))[0]?.data, ['grün']);
    for (const [model, body] of [
      ['floats', numbers.subarray(1)],
      ['half', numbers],
      ['text', Uint8Array.of(0xff)],
      ['text', Buffer.from('a\0b')],
      ['free', numbers],
      ['every', numbers],
    ] as const) {
      const { response, bytes } = await raw(model, body);
      assert.equal(response.status, 400, `${model}: ${text(bytes)}`);
      assert.equal(response.headers.get('x-lepton-code'), 'infer-invalid');
    }
  });

  test('one connection that asks the same of other numbers, and then something else', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ask = (
      model: string,
      tensor: Tensor,
      edit = (body: Buffer): Buffer => body,
      parameters: InferRequest['parameters'] = {},
    ): Promise<string> =>
      new Promise((resolve, reject) => {
        const message = encodeBinaryRequest({
          inputs: [tensor],
          parameters: { binary_data_output: false, ...parameters },
        });
        const body = edit(Buffer.concat(message.pieces));
        const headers = { [jsonLengthHeader]: message.jsonBytes, 'content-length': body.length };
        const asked = httpRequest(url(model), { method: 'POST', agent, headers }, (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('end', () => {
            const answer = JSON.parse(Buffer.concat(chunks).toString('utf8')) as {
              outputs?: [{ data: unknown }];
              error?: string;
            };
            resolve(answer.error ?? JSON.stringify(answer.outputs?.[0].data));
          });
        });
        asked.on('error', reject).end(body);
      });
    const numbers = (...values: number[]): Tensor => {
      return { ...floats, shape: [values.length / 2, 2], data: Float32Array.from(values) };
    };
    const truth = (...values: number[]): Tensor => {
      return { name: 'x', datatype: 'BOOL', shape: [values.length], data: Uint8Array.from(values) };
    };
    const spoilt = (body: Buffer): Buffer => {
      body[body.length - 1] = 2;
      return body;
    };
    assert.equal(await ask('again', numbers(1, 2)), '[1,2]');
    assert.equal(await ask('again', numbers(3, 4)), '[3,4]');
    assert.equal(await ask('again', numbers(5, 6, 7, 8)), '[5,6,7,8]');
    assert.equal(await ask('again', numbers(9, 10, 11, 12)), '[9,10,11,12]');
    assert.match(
      await ask('again', numbers(1, 2, 3, 4), (body) => body.subarray(0, -1)),
      /fewer than 16 bytes/,
    );
    assert.match(
      await ask('again', numbers(1, 2, 3, 4), (body) => Buffer.concat([body, Buffer.alloc(1)])),
      /1 bytes behind the JSON belong to no tensor/,
    );
    assert.equal(await ask('truth', truth(1, 0)), '[true,false]');
    const first = await ask('truth', truth(1), spoilt);
    assert.match(first, /BOOL/);
    assert.equal(await ask('truth', truth(0)), '[false]');
    assert.equal(await ask('truth', truth(1), spoilt), first, 'known by then');
    assert.equal(await ask('truth', truth(1)), '[true]');
    // The same JSON for a model that takes something else.
    assert.match(await ask('again', truth(1)), /FP32/);
    // What is refused the first time is no more served the second.
    for (let round = 0; round < 2; round++)
      assert.match(
        await ask('again', numbers(1, 2), undefined, { classification: 1 }),
        /classification is not served/,
      );
    agent.destroy();
  });

  test('half floats in JSON are numbers', async () => {
    const body = '{"inputs":[{"name":"x","datatype":"FP16","shape":[3],"data":[1,0.5,"NaN"]}]}';
    const { bytes } = await post(url('half'), body, identity);
    assert.match(text(bytes), /"datatype":"FP16","data":\[1,0\.5,"NaN"\]/);
  });

  test('bodies in gzip and deflate are the same requests', async () => {
    const message = encodeBinaryRequest({ inputs: [floats], parameters: { binary_data_output: true } });
    const body = Buffer.concat(message.pieces);
    const length = { ...identity, [jsonLengthHeader]: String(message.jsonBytes) };
    for (const [coding, packed] of [
      ['gzip', gzipSync(body)],
      ['X-GZIP', gzipSync(body)],
      ['deflate', deflateSync(body)],
      ['identity', body],
    ] as const) {
      const answer = await post(url('floats'), packed, { ...length, 'content-encoding': coding });
      assert.deepEqual(readBinary(answer)[0]?.data, floats.data);
    }
    const two = Buffer.concat([gzipSync(body.subarray(0, 9)), gzipSync(body.subarray(9))]);
    const members = await post(url('floats'), two, { ...length, 'content-encoding': 'gzip' });
    assert.deepEqual(readBinary(members)[0]?.data, floats.data);
  });

  test('answers are packed for who asks, where it gains something', async () => {
    /** Not fetch: it would unpack before we see it. */
    const ask = (
      body: Uint8Array,
      accept: string,
    ): Promise<{ coding: string; bytes: Buffer; jsonBytes: number }> =>
      new Promise((resolve, reject) => {
        const sent = httpRequest(
          url('floats'),
          { method: 'POST', headers: { 'accept-encoding': accept } },
          (response) => {
            const parts: Buffer[] = [];
            response.on('data', (part: Buffer) => parts.push(part));
            response.on('end', () =>
              resolve({
                coding: response.headers['content-encoding'] ?? 'none',
                bytes: Buffer.concat(parts),
                jsonBytes: Number(response.headers[jsonLengthHeader] ?? -1),
              }),
            );
          },
        );
        sent.on('error', reject);
        sent.end(body);
      });
    const many: Tensor = {
      name: 'x',
      datatype: 'FP32',
      shape: [5_000, 2],
      data: new Float32Array(10_000).fill(1),
    };
    const large = encodeInferRequest({ inputs: [many] });
    const plain = (await ask(large, 'identity')).bytes;
    assert.deepEqual(unwrap(parseInferResponse(plain)).outputs[0]?.data, many.data);
    for (const accept of ['gzip', 'gzip, deflate, br', 'x-gzip', 'deflate;q=0.5, gzip']) {
      const { coding, bytes } = await ask(large, accept);
      assert.equal(coding, 'gzip', accept);
      assert.ok(bytes.length < plain.length / 2 && gunzipSync(bytes).equals(plain));
    }
    for (const accept of ['deflate', 'gzip;q=0, deflate', 'gzip;q=0.2, deflate;q=0.9']) {
      const { coding, bytes } = await ask(large, accept);
      assert.equal(coding, 'deflate', accept);
      assert.ok(inflateSync(bytes).equals(plain));
    }
    for (const accept of ['br', 'gzip;q=0', '', '*;q=0'])
      assert.equal((await ask(large, accept)).coding, 'none', accept);
    assert.equal((await ask(encodeInferRequest({ inputs: [floats] }), 'gzip')).coding, 'none', 'too small');
    const raw = encodeInferRequest({ inputs: [many], parameters: { binary_data_output: true } });
    assert.equal((await ask(raw, 'gzip, deflate')).coding, 'none', 'raw numbers, asked by habit');
    const packed = await ask(raw, 'gzip');
    assert.equal(packed.coding, 'gzip');
    const outputs = unwrap(parseBinaryResponse(gunzipSync(packed.bytes), packed.jsonBytes)).outputs;
    assert.deepEqual(outputs[0]?.data, many.data);
  });

  test('statistics count what was asked, under Triton’s names', async () => {
    await stage.serve('counted', [{ path: 'model.onnx', role: 'model', bytes: single(1, ['n', 2]) }]);
    const stats = async (path: string) =>
      statisticsSchema.parse(await (await fetch(`${http.url}/v2/models${path}/stats`)).json()).model_stats;
    const version = stage.host.model('counted')?.version ?? '';
    assert.equal((await stats('/counted'))[0]?.last_inference, 0);
    for (let i = 0; i < 3; i++) await post(url('counted'), encodeInferRequest({ inputs: [floats] }));
    const [one, ...rest] = await stats(`/counted/versions/${version}`);
    assert.deepEqual(rest, []);
    assert.ok(one !== undefined && one.last_inference > 0);
    assert.equal(one.name, 'counted');
    assert.equal(one.inference_count, 3);
    assert.equal(one.execution_count, 3);
    const { success, fail, queue, compute_infer } = one.inference_stats;
    assert.deepEqual([success.count, fail.count, queue.count, compute_infer.count], [3, 0, 3, 3]);
    assert.ok(success.ns >= compute_infer.ns && compute_infer.ns > 0);
    assert.deepEqual(
      one.batch_stats.map(({ batch_size, compute_infer: inside }) => [batch_size, inside.count]),
      [[1, 3]],
    );
    const all = (await stats('')).map(({ name }) => name);
    assert.deepEqual(all, ['again', 'counted', 'every', 'floats', 'free', 'half', 'text', 'truth']);
    assert.equal((await fetch(`${http.url}/v2/models/nobody/stats`)).status, 404);
    assert.equal((await fetch(`${http.url}/v2/models/counted/versions/7/stats`)).status, 404);
  });

  test('the client’s own deadline goes to the host, the shorter of two', async () => {
    const ask = async (timeout: unknown, header?: string) => {
      calls.length = 0;
      const body = `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]${timeout === undefined ? '' : `,"parameters":{"timeout":${timeout}}`}}`;
      const { response } = await post(
        url('floats'),
        body,
        header === undefined ? {} : { 'x-lepton-timeout-ms': header },
      );
      return response.status === 200 ? calls[0]?.deadlineMs : response.status;
    };
    assert.equal(await ask(undefined), undefined);
    assert.equal(await ask(0), undefined);
    assert.equal(await ask(5_000_000), 5_000);
    assert.equal(await ask(undefined, '7000'), 7_000);
    assert.equal(await ask(5_000_000, '7000'), 5_000);
    assert.equal(await ask(9_000_000, '7000'), 7_000);
    for (const bad of [-1, '"1"', 'true']) assert.equal(await ask(bad), 400, `${bad}`);
    for (const bad of ['-1', '0', 'x', '1.5', '1e3', '99999999999'])
      assert.equal(await ask(undefined, bad), 400, bad);
  });

  test('the server’s name and extensions are what was configured', async () => {
    const body = (await (await fetch(`${http.url}/v2`)).json()) as object;
    assert.deepEqual(body, { name: 'a-name', version: 'unknown', extensions: ['one', 'two'] });
  });
});

describe('a host that cannot answer now', () => {
  test('503 says when to try again, and a client that goes away is told to the host', async () => {
    const stage = openStage();
    after(() => stage.close());
    await stage.serve('echo', [{ path: 'model.onnx', role: 'model', bytes: modelFile() }]);
    let aborted: () => void = () => undefined;
    const gone = new Promise<void>((resolve) => {
      aborted = resolve;
    });
    let entered: () => void = () => undefined;
    const inside = new Promise<void>((resolve) => {
      entered = resolve;
    });
    let full = true;
    const http = await startHttp(stage, {
      inference: {
        ...stage.host,
        infer: async (_as, _version, { signal }) => {
          if (full) return refuse('infer-queue-full', '64 requests wait');
          signal?.addEventListener('abort', () => aborted());
          entered();
          await gone;
          return refuse('interrupted', 'the client went away');
        },
      },
    });
    after(() => http.close());
    const url = `${http.url}/v2/models/echo/infer`;
    const body = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[4]}]}';
    const { response } = await post(url, body);
    assert.equal(response.status, 503);
    assert.match(response.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
    full = false;
    const client = new AbortController();
    const asked = assert.rejects(fetch(url, { method: 'POST', body, signal: client.signal }));
    await inside;
    client.abort();
    await asked;
    await gone;
  });
});
