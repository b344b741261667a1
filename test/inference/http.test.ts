// Why: the device's HTTP as applications use it: the protocol's answers, its errors, and what hostile
// clients send. Needs no data folder. Trusts: a made echo model. Must never: leave a server listening.

import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { AgentHttp, AgentHttpOptions } from '../../agent/api/http.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { modelFile } from '../onnx/models.ts';
import { emptyStatus, openStage, post, type Stage, startHttp } from './staging.ts';

describe('the protocol and its errors', () => {
  let stage: Stage;
  let http: AgentHttp;
  const infer = (body: Uint8Array | string, headers: Record<string, string> = {}) =>
    post(`${http.url}/v2/models/echo/infer`, body, headers);
  const good = '{"inputs":[{"name":"x","datatype":"INT64","shape":[2],"data":[9007199254740993,-1]}]}';
  before(async () => {
    stage = openStage();
    undo.push(stage.close);
    const value = (name: string) => ({ name, elemType: 7, shape: ['n'] });
    const bytes = modelFile({ inputs: [value('x')], outputs: [value('y')] });
    await stage.serve('echo', [{ path: 'model.onnx', role: 'model', bytes }]);
    http = await startHttp(stage, {
      version: '1.2.3',
      body: { bytesMax: 64 * 1024, timeoutMs: 500, totalBytesMax: 200 * 1024 },
    });
    undo.push(http.close);
  });
  const undo: (() => Promise<void>)[] = [];
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  const get = async (path: string) => {
    const response = await fetch(`${http.url}${path}`);
    return {
      status: response.status,
      code: response.headers.get('x-lepton-code'),
      json: (await response.json()) as object,
    };
  };

  test('metadata, health, readiness, index, status', async () => {
    assert.deepEqual(await get('/v2'), {
      status: 200,
      code: null,
      json: {
        name: 'lepton-agent',
        version: '1.2.3',
        extensions: [
          'binary_tensor_data',
          'model_repository',
          'model_repository(index)',
          'parameters',
          'statistics',
        ],
      },
    });
    assert.deepEqual((await get('/v2/health/live')).json, { live: true });
    assert.deepEqual((await get('/healthz')).json, { live: true });
    assert.deepEqual((await get('/v2/health/ready')).json, { ready: true });
    assert.deepEqual((await get('/status')).json, emptyStatus);
    const version = stage.host.models()[0]?.version ?? '';
    assert.deepEqual((await get('/v2/models/echo')).json, {
      name: 'echo',
      versions: [version],
      platform: 'onnx_onnxv1',
      inputs: [{ name: 'x', datatype: 'INT64', shape: [-1] }],
      outputs: [{ name: 'y', datatype: 'INT64', shape: [-1] }],
    });
    assert.equal((await get(`/v2/models/echo/versions/${version}`)).status, 200);
    assert.deepEqual((await get('/v2/models/echo/ready')).json, { name: 'echo', ready: true });
    const index = [{ name: 'echo', version, state: 'READY', reason: '' }];
    assert.deepEqual((await get('/v2/repository/index')).json, index);
    for (const body of ['', '{}', '{"ready":true}', '{"ready":false}']) {
      const posted = await post(`${http.url}/v2/repository/index`, body);
      assert.deepEqual(JSON.parse(Buffer.from(posted.bytes).toString('utf8')), index);
    }
    for (const body of ['[]', '{', '{"ready":"yes"}'])
      await expectError(await post(`${http.url}/v2/repository/index`, body), 400, 'input-invalid');
    for (const act of ['load', 'unload'])
      await expectError(
        await post(`${http.url}/v2/repository/models/echo/${act}`, '{}'),
        501,
        'infer-unsupported',
      );
  });

  test('an answer carries the version and exact 64-bit integers', async () => {
    const { response, bytes } = await infer(good);
    assert.equal(response.status, 200);
    assert.match(Buffer.from(bytes).toString('utf8'), /"model_version":"1\.0\.0".*9007199254740993/);
  });

  const expectError = async (
    answer: { response: Response; bytes: Uint8Array },
    status: number,
    code: string,
  ) => {
    assert.equal(answer.response.status, status);
    assert.equal(answer.response.headers.get('x-lepton-code'), code);
    const body = JSON.parse(Buffer.from(answer.bytes).toString('utf8')) as { error?: unknown };
    assert.equal(typeof body.error, 'string');
  };

  test('bad requests are refused with their own status and code', async () => {
    const one = (tensor: string) => infer(`{"inputs":[${tensor}]}`);
    const bad = [
      '',
      '{',
      'null',
      '{"inputs":[]}',
      '{"inputs":[{"name":"x","datatype":"INT64","shape":[2],"data":[1]}]}',
      '{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[1.5]}]}',
      '{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[9223372036854775808]}]}',
      '{"inputs":[{"name":"x","datatype":"NOPE","shape":[1],"data":[1]}]}',
      '{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[NaN]}]}',
      '{"inputs":[{"name":"x","datatype":"INT64","shape":[4294967296,4294967296],"data":[1]}]}',
      '{"inputs":[{"name":"x","datatype":"INT64","shape":[-1],"data":[1]}]}',
      `${'['.repeat(5_000)}`,
    ];
    for (const body of bad) await expectError(await infer(body), 400, 'infer-invalid');
    await expectError(
      await one('{"name":"x","datatype":"FP32","shape":[1],"data":[1]}'),
      400,
      'infer-invalid',
    );
    await expectError(
      await one('{"name":"z","datatype":"INT64","shape":[1],"data":[1]}'),
      400,
      'infer-invalid',
    );
    await expectError(await post(`${http.url}/v2/models/nobody/infer`, good), 404, 'infer-unknown-model');
    await expectError(
      await post(`${http.url}/v2/models/echo/versions/9.9.9/infer`, good),
      404,
      'infer-unknown-model',
    );
    await expectError(await post(`${http.url}/v2/nowhere`, good), 404, 'not-found');
    await expectError(await post(`${http.url}/v2/models/%zz/infer`, good), 400, 'input-invalid');
    await expectError(await post(`${http.url}/v2/models/echo`, good), 405, 'method-not-allowed');
    assert.equal((await get('/v2/models/echo/infer')).status, 405);
  });

  test('what would change the meaning of the answer is refused, not ignored', async () => {
    const withField = (field: string) => infer(`{${field},${good.slice(1)}`);
    await expectError(await withField('"parameters":{"sequence_id":7}'), 501, 'infer-unsupported');
    await expectError(await withField('"parameters":{"sequence_start":true}'), 501, 'infer-unsupported');
    await expectError(await withField('"parameters":{"binary_data_output":"yes"}'), 400, 'infer-invalid');
    await expectError(
      await withField('"outputs":[{"name":"y","parameters":{"binary_data":1}}]'),
      400,
      'infer-invalid',
    );
    await expectError(await infer(good, { 'content-encoding': 'br' }), 415, 'body-encoding');
    await expectError(
      await withField('"outputs":[{"name":"y","parameters":{"classification":3}}]'),
      501,
      'infer-unsupported',
    );
    const harmless = await withField(
      '"parameters":{"binary_data_output":false,"priority":1,"sequence_id":0,"own":"x"}',
    );
    assert.equal(harmless.response.status, 200);
  });

  test('a body that is too large is refused, whether its length is told or not', async () => {
    await expectError(await infer(new Uint8Array(64 * 1024 + 1)), 413, 'body-too-large');
    // Chunked, far beyond the limit: the answer must reach a client that is still sending.
    const status = await new Promise<number>((resolve, reject) => {
      const request = httpRequest(`${http.url}/v2/models/echo/infer`, { method: 'POST' }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      request.on('error', reject);
      for (let part = 0; part < 256; part++) request.write(Buffer.alloc(64 * 1024, 0x20));
      request.end();
    });
    assert.equal(status, 413);
  });

  test('a client that is refused early may finish sending: the answer is not lost in a reset', async () => {
    const socket = connect(Number(new URL(http.url).port), '127.0.0.1');
    const outcome = new Promise<string>((resolve, reject) => {
      socket.on('error', reject);
      socket.once('data', (chunk) => {
        const part = Buffer.alloc(64 * 1024, 0x20);
        const next = (left: number): void => {
          if (left === 0) resolve(chunk.toString('latin1'));
          else socket.write(part, (error) => (error ? reject(error) : next(left - 1)));
        };
        next(64);
      });
    });
    socket.write(
      `POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: ${64 * 64 * 1024}\r\n\r\n`,
    );
    assert.match(await outcome, /^HTTP\/1\.1 413 /);
    socket.destroy();
  });

  /** Sends raw bytes and collects what comes back until the server closes. */
  const raw = (text: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connect(Number(new URL(http.url).port), '127.0.0.1', () => socket.write(text));
      let answer = '';
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1');
      });
      socket.on('error', reject);
      socket.on('close', () => resolve(answer));
    });

  test('a body that never ends is timed out, bytes that are no HTTP are refused', async () => {
    const slow = await raw('POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{');
    assert.match(slow, /^HTTP\/1\.1 408 /);
    assert.match(slow, /x-lepton-code: body-timeout/i);
    assert.match(await raw('\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n'), /^HTTP\/1\.1 400 /);
    const smuggled =
      'POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n';
    assert.match(await raw(smuggled), /^HTTP\/1\.1 400 /);
    assert.equal((await infer(good)).response.status, 200, 'and the next client is served');
  });

  test('clients that go away in mid-request leave nothing behind', async () => {
    for (let i = 0; i < 20; i++) {
      await new Promise<void>((resolve) => {
        const socket = connect(Number(new URL(http.url).port), '127.0.0.1', () => {
          socket.write(
            'POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{"inputs"',
            () => {
              socket.destroy();
              resolve();
            },
          );
        });
      });
    }
    const padded = good.padEnd(20 * 1024);
    assert.equal((await infer(padded)).response.status, 200, 'their share of the memory was given back');
  });

  test('one connection serves many requests, also after a refusal', async () => {
    const answer = await raw(
      [
        'GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n',
        'GET /v2/nowhere HTTP/1.1\r\nHost: x\r\n\r\n',
        `POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: ${good.length}\r\n\r\n${good}`,
        'GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
      ].join(''),
    );
    assert.deepEqual(answer.match(/HTTP\/1\.1 \d+/g), [
      'HTTP/1.1 200',
      'HTTP/1.1 404',
      'HTTP/1.1 200',
      'HTTP/1.1 200',
    ]);
  });
});

describe('who may listen and enter', () => {
  test('beyond loopback only with a token, and then nothing without it', async () => {
    const stage = openStage();
    after(() => stage.close());
    const codeOf = async (options: Partial<AgentHttpOptions>): Promise<string> => {
      try {
        await (await startHttp(stage, options)).close();
        return 'listens';
      } catch (error) {
        return error instanceof FleetError ? error.code : String(error);
      }
    };
    assert.equal(await codeOf({ host: '0.0.0.0' }), 'listen-insecure');
    assert.equal(await codeOf({ host: '::' }), 'listen-insecure');
    assert.equal(await codeOf({ host: '127.0.0.1.example' }), 'listen-insecure');
    assert.equal(await codeOf({ host: '0.0.0.0', token: '' }), 'listen-insecure');
    assert.equal(await codeOf({ host: 'localhost' }), 'listens');
    const http = await startHttp(stage, { host: '0.0.0.0', token: 'a-secret' });
    after(() => http.close());
    const url = http.url.replace('0.0.0.0', '127.0.0.1');
    const statusOf = async (path: string, authorization?: string): Promise<number> => {
      const response = await fetch(
        url + path,
        authorization === undefined ? {} : { headers: { authorization } },
      );
      await response.arrayBuffer();
      return response.status;
    };
    assert.equal(await statusOf('/v2'), 401);
    assert.equal(await statusOf('/nowhere'), 401);
    assert.equal(await statusOf('/v2', 'Bearer another'), 401);
    assert.equal(await statusOf('/v2', 'Bearer a-secret'), 200);
    assert.equal(await statusOf('/healthz'), 200);
    const taken = await codeOf({ port: Number(new URL(http.url).port), host: '127.0.0.1' });
    assert.equal(taken, 'port-in-use');
  });

  test('close lets requests finish and takes no new ones', async () => {
    const stage = openStage();
    after(() => stage.close());
    await stage.serve('echo', [{ path: 'model.onnx', role: 'model', bytes: modelFile() }]);
    let enter: () => void = () => undefined;
    const entered = new Promise<void>((resolve) => {
      enter = resolve;
    });
    const infer: typeof stage.host.infer = (...call) => {
      enter();
      return stage.host.infer(...call);
    };
    const http = await startHttp(stage, { inference: { ...stage.host, infer } });
    const body = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[4]}]}';
    const pid = stage.host.models()[0]?.pid;
    assert.ok(pid);
    process.kill(pid, 'SIGSTOP');
    const asked = post(`${http.url}/v2/models/echo/infer`, body);
    await entered;
    const closing = http.close();
    process.kill(pid, 'SIGCONT');
    assert.equal((await asked).response.status, 200);
    await closing;
    await assert.rejects(fetch(`${http.url}/healthz`));
  });

  test('close does not wait for ever', async () => {
    const stage = openStage();
    after(() => stage.close());
    const http = await startHttp(stage, { drainMs: 100 });
    const socket = connect(Number(new URL(http.url).port), '127.0.0.1');
    const ended = new Promise((resolve) => socket.once('close', resolve).on('error', () => undefined));
    socket.write('POST /v2/nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n');
    await new Promise((resolve) => socket.once('data', resolve));
    await http.close();
    await ended;
  });
});
