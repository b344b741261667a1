// Why: streams and sequences on real models: the agent keeps state and context, by HTTP, socket and topic, and gives
// what upstream's own loop gives. Trusts: the data folder's probabilities. Must never: loosen their tolerance.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { type AddressInfo, createConnection, createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { Aedes } from 'aedes';
import { connect } from 'mqtt';
import type { AgentHttp } from '../../agent/api/http.ts';
import { openSources, type StreamSources, socketPath } from '../../agent/api/stream-sources.ts';
import { createWindows } from '../../agent/inference/windows.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { dataFolder, dataMissing, readJson } from '../support/data.ts';
import { openStage, post, type Stage, startHttp } from './staging.ts';

interface Step {
  index: number;
  start: number;
  model_version: string;
  reset?: boolean;
  outputs: { name: string; data: number[] }[];
  error?: string;
  code?: string;
}

const parseLines = (text: string): Step[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Step);

describe('a speech model that hears a stream', { skip: dataMissing }, () => {
  const recipe = {
    state: [{ output: 'stateN', input: 'state' }],
    context: [{ input: 'input', samples: 64 }],
    constants: [{ input: 'sr', data: [16_000] }],
    stream: { input: 'input', window: 512, hop: 512, source: 'unix' },
  };
  const model = (version: 'v5' | 'v6'): string =>
    dataFolder('models', 'silero-vad', `silero-${version}.onnx`);
  let stage: Stage;
  let http: AgentHttp;
  let sources: StreamSources;
  const undo: (() => Promise<void>)[] = [];
  let samples: Float32Array;
  let wanted: Record<'v5' | 'v6', { probs: number[] }>;
  const tolerance = 1e-3;

  before(async () => {
    const wav = readFileSync(dataFolder('inputs', 'test.wav'));
    const at = wav.indexOf('data', 12, 'latin1') + 8;
    const pcm = new Int16Array(
      wav.buffer.slice(wav.byteOffset + at, wav.byteOffset + wav.length - ((wav.length - at) % 2)),
    );
    samples = Float32Array.from(pcm, (value) => value / 32_768);
    wanted = readJson<{ streams: typeof wanted }>(dataFolder('models', 'silero-vad', 'streams.json')).streams;
    stage = openStage({ threads: 1, onServing: () => sources?.reconcile() });
    undo.push(stage.close);
    sources = openSources({
      inference: stage.host,
      clock: systemClock,
      log: { emit: () => undefined },
      stateFolder: stage.folder,
    });
    undo.push(() => sources.close());
    http = await startHttp(stage);
    undo.push(http.close);
    await stage.serve('vad', model('v5'), recipe);
  });
  after(async () => {
    for (const end of undo.reverse()) await end();
  });

  const bytesOf = (from: number, to: number): Buffer => {
    const part = samples.slice(from, to);
    return Buffer.from(part.buffer, part.byteOffset, part.byteLength);
  };

  function compare(steps: readonly Step[], probabilities: readonly number[], name: string): void {
    assert.equal(steps.length, probabilities.length, name);
    for (const [index, step] of steps.entries()) {
      const [output] = step.outputs;
      assert.deepEqual(
        [step.index, step.start, step.outputs.length, output?.name],
        [index, index * 512, 1, 'output'],
      );
      const difference = Math.abs((output?.data[0] ?? Number.NaN) - (probabilities[index] ?? 0));
      assert.ok(difference <= tolerance, `${name} window ${index}: off by ${difference}`);
    }
  }

  /** Sends the pieces as chunks and reads the whole answer. */
  function stream(pieces: readonly Buffer[], type: string): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const sent = httpRequest(
        `${http.url}/v2/models/vad/stream`,
        { method: 'POST', headers: { 'content-type': type } },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (part: string) => {
            text += part;
          });
          response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
        },
      );
      sent.on('error', reject);
      for (const piece of pieces) sent.write(piece);
      sent.end();
    });
  }

  test('a minute of raw samples in odd pieces: every probability of upstream’s own loop', async () => {
    const windows = wanted.v5.probs.length;
    const whole = bytesOf(0, windows * 512);
    const pieces: Buffer[] = [];
    for (let at = 0; at < whole.length; at += 4_099) pieces.push(whole.subarray(at, at + 4_099));
    const { status, text } = await stream(pieces, 'application/octet-stream');
    assert.equal(status, 200);
    compare(parseLines(text), wanted.v5.probs, 'raw');
  });

  test('as lines of JSON', async () => {
    const lines = Array.from({ length: 40 }, (_, index) =>
      Buffer.from(`${JSON.stringify([...samples.slice(index * 700, (index + 1) * 700)])}\n`),
    );
    const { text } = await stream(lines, 'application/x-ndjson');
    compare(parseLines(text), wanted.v5.probs.slice(0, Math.floor((40 * 700) / 512)), 'lines');
  });

  test('answers come while samples are still being sent', async () => {
    const sent = httpRequest(`${http.url}/v2/models/vad/stream`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
    });
    const answers: Step[] = [];
    const ended = new Promise<void>((resolve, reject) => {
      sent.on('error', reject);
      sent.on('response', (response) => {
        response.setEncoding('utf8').on('data', (text: string) => {
          answers.push(...parseLines(text));
          // The next window goes out only when the one before was answered.
          if (answers.length < 5) sent.write(bytesOf(answers.length * 512, (answers.length + 1) * 512));
          else sent.end();
        });
        response.on('end', resolve);
      });
    });
    sent.write(bytesOf(0, 512));
    await ended;
    compare(answers, wanted.v5.probs.slice(0, 5), 'in turns');
  });

  test('over the socket of the model, two streams at once', async () => {
    const path = socketPath(stage.folder, 'vad');
    const listen = (windows: number): Promise<Step[]> =>
      new Promise((resolve, reject) => {
        const socket = createConnection({ path, allowHalfOpen: true });
        let text = '';
        socket.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        socket.on('error', reject);
        socket.on('end', () => {
          socket.destroy();
          resolve(parseLines(text));
        });
        for (let index = 0; index < windows; index++)
          socket.write(`{"data":${JSON.stringify([...samples.slice(index * 512, (index + 1) * 512)])}}\n`);
        socket.end();
      });
    const [one, two] = await Promise.all([listen(20), listen(30)]);
    compare(one, wanted.v5.probs.slice(0, 20), 'socket one');
    compare(two, wanted.v5.probs.slice(0, 30), 'socket two');
  });

  test('a sequence of inference requests shares its state', async () => {
    const step = async (index: number, extra: object): Promise<number> => {
      const { response, bytes } = await post(
        `${http.url}/v2/models/vad/infer`,
        JSON.stringify({
          parameters: { sequence_id: 7, ...extra },
          inputs: [
            {
              name: 'input',
              datatype: 'FP32',
              shape: [1, 512],
              data: [...samples.slice(index * 512, (index + 1) * 512)],
            },
          ],
        }),
      );
      const answer = JSON.parse(Buffer.from(bytes).toString('utf8')) as Step;
      assert.equal(response.status, 200, answer.error);
      assert.deepEqual(
        answer.outputs.map(({ name }) => name),
        ['output'],
      );
      return answer.outputs[0]?.data[0] ?? Number.NaN;
    };
    assert.ok(Math.abs((await step(0, { sequence_start: true })) - (wanted.v5.probs[0] ?? 0)) <= tolerance);
    for (let index = 1; index < 10; index++) {
      const end = index === 9 ? { sequence_end: true } : {};
      const got = await step(index, end);
      assert.ok(Math.abs(got - (wanted.v5.probs[index] ?? 0)) <= tolerance, `window ${index}: ${got}`);
    }
    const { response } = await post(
      `${http.url}/v2/models/vad/infer`,
      JSON.stringify({
        parameters: { sequence_id: 7 },
        inputs: [{ name: 'input', datatype: 'FP32', shape: [1, 512], data: Array(512).fill(0) }],
      }),
    );
    assert.equal(response.status, 400, 'it has ended');
  });

  test('a stream goes on over a switch of releases, with new state, and says so', async () => {
    const sent = httpRequest(`${http.url}/v2/models/vad/stream`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
    });
    const answers: Step[] = [];
    const ended = new Promise<void>((resolve, reject) => {
      sent.on('error', reject);
      sent.on('response', (response) => {
        response.setEncoding('utf8').on('data', (text: string) => {
          answers.push(...parseLines(text));
          const next = answers.length;
          const go = (): unknown =>
            next < 12 ? sent.write(bytesOf(next * 512, (next + 1) * 512)) : sent.end();
          if (next === 6) stage.serve('vad', model('v6'), recipe).then(go, reject);
          else go();
        });
        response.on('end', resolve);
      });
    });
    sent.write(bytesOf(0, 512));
    await ended;
    assert.equal(answers.length, 12);
    assert.deepEqual(
      answers.flatMap(({ reset, index }) => (reset === true ? [index] : [])),
      [6],
    );
    const versions = answers.map(({ model_version }) => model_version);
    assert.equal(new Set(versions.slice(0, 6)).size, 1);
    assert.equal(new Set(versions.slice(6)).size, 1);
    assert.notEqual(versions[0], versions[6]);
    await stage.serve('vad', model('v5'), recipe);
  });

  test('what goes wrong ends the stream with a line that says why', async () => {
    const table: [Buffer, string, RegExp][] = [
      [Buffer.from('[1,2,"x"]\n'), 'application/json', /no number/],
      [Buffer.from('[1,2\n'), 'application/json', /not JSON/],
      [Buffer.from('[1e39]\n'), 'application/json', /beyond the range/],
      [Buffer.from('{"samples":[1]}\n'), 'application/json', /list of numbers/],
      [Buffer.from([1, 2, 3]), 'application/octet-stream', /no whole sample/],
    ];
    for (const [body, type, fault] of table) {
      const { status, text } = await stream([body], type);
      assert.equal(status, 200);
      const [line, ...more] = parseLines(text);
      assert.equal(more.length, 0);
      assert.equal(line?.code, 'infer-invalid');
      assert.match(line?.error ?? '', fault);
    }
    const missing = await post(`${http.url}/v2/models/nobody/stream`, '');
    assert.equal(missing.response.status, 404);
  });
});

describe('streams of a model without a recipe, and topics', () => {
  test('a model whose manifest names no stream refuses one, and sequences', async () => {
    const stage = openStage({ threads: 1 });
    const http = await startHttp(stage);
    try {
      await stage.serve('tiny', [{ path: 'model.onnx', role: 'model', bytes: tinyModel(2) }]);
      assert.equal((await post(`${http.url}/v2/models/tiny/stream`, '[1]')).response.status, 501);
      const inputs = [{ name: 'x', datatype: 'FP32', shape: [2], data: [1, 2] }];
      const body = (parameters: object): string => JSON.stringify({ parameters, inputs });
      const url = `${http.url}/v2/models/tiny/infer`;
      assert.equal((await post(url, body({ sequence_id: 3, sequence_start: true }))).response.status, 501);
      assert.equal((await post(url, body({ sequence_start: true }))).response.status, 501);
    } finally {
      await http.close();
      await stage.close();
    }
  });

  test('samples on a topic of the local broker are answered beside it', async () => {
    const aedes = await Aedes.createBroker();
    const server = createServer(aedes.handle);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`;
    let sources: StreamSources | null = null;
    const stage = openStage({ threads: 1, onServing: () => sources?.reconcile() });
    sources = openSources({
      inference: stage.host,
      clock: systemClock,
      log: { emit: () => undefined },
      stateFolder: stage.folder,
      brokerUrl: url,
    });
    const client = connect(url);
    try {
      await stage.serve('tiny', [{ path: 'model.onnx', role: 'model', bytes: tinyModel(2) }], {
        stream: { input: 'x', window: 2, hop: 1, source: 'mqtt:plant/+/level' },
      });
      if (!client.connected) await new Promise<void>((resolve) => client.once('connect', () => resolve()));
      const got = new Map<string, number[][]>();
      let arrived: () => void = () => undefined;
      client.on('message', (topic, payload) => {
        const step = JSON.parse(payload.toString('utf8')) as Step;
        got.set(topic, [...(got.get(topic) ?? []), step.outputs?.[0]?.data ?? []]);
        arrived();
      });
      await client.subscribeAsync('plant/+/level/inference');
      const until = async (done: () => boolean): Promise<void> => {
        while (!done()) await new Promise<void>((resolve) => (arrived = resolve));
      };
      // The agent subscribes in its own time: repeat the first sample on a topic of its own until it is answered.
      const knock = setInterval(() => client.publish('plant/knock/level', '[0,0]'), 50);
      await until(() => got.has('plant/knock/level/inference'));
      clearInterval(knock);
      client.publish('plant/a/level', '[1,2]');
      client.publish('plant/b/level', '[10]');
      client.publish('plant/a/level', '{"data":[3]}');
      client.publish('plant/b/level', '[20,30]');
      const of = (topic: string): number[][] => got.get(`plant/${topic}/level/inference`) ?? [];
      await until(() => of('a').length >= 2 && of('b').length >= 2);
      assert.deepEqual(of('a'), [
        [2, 4],
        [4, 6],
      ]);
      assert.deepEqual(of('b'), [
        [20, 40],
        [40, 60],
      ]);
      // What is no samples is answered with a fault, and what waits behind it begins a new stream.
      client.publish('plant/a/level', '[oops');
      client.publish('plant/a/level', '[5,6]');
      await until(() => of('a').length >= 4);
      assert.deepEqual(of('a').slice(2), [[], [10, 12]]);
    } finally {
      await client.endAsync(true);
      await sources.close();
      await stage.close();
      aedes.close();
      server.close();
    }
  });
});

test('windows: overlap, gaps, and whatever is left waits', () => {
  const cut = (window: number, hop: number, channels: number, pieces: number[][]): [number, number[]][] => {
    const windows = createWindows({ window, hop, channels });
    return pieces.flatMap((piece) =>
      windows
        .push(Float32Array.from(piece))
        .map(({ start, data }): [number, number[]] => [start, [...data] as number[]]),
    );
  };
  assert.deepEqual(
    cut(3, 1, 1, [
      [1, 2],
      [3, 4],
    ]),
    [
      [0, [1, 2, 3]],
      [1, [2, 3, 4]],
    ],
  );
  assert.deepEqual(
    cut(2, 3, 1, [
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ]),
    [
      [0, [1, 2]],
      [3, [4, 5]],
      [6, [7, 8]],
    ],
  );
  assert.deepEqual(cut(1, 4, 1, [[1], [2], [3], [4], [5]]), [
    [0, [1]],
    [4, [5]],
  ]);
  assert.deepEqual(cut(2, 2, 2, [[1, 10, 2, 20, 3, 30]]), [[0, [1, 10, 2, 20]]]);
});
