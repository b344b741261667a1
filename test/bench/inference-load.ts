// Why: many clients at once: requests per second beside a bare server that parses and answers the same bodies, and
// what dynamic batching gains. Trusts: load.ts. Must never: let one side have a client of its own kind.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { writeModel } from '../../shared/onnx/writer.ts';
import { encodeInferRequest } from '../../shared/wire/oip-json.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { openStage, type StagedFile, startHttp } from '../inference/staging.ts';
import { modelCase } from '../support/cases.ts';
import { type LoadProcess, type LoadResult, startLoad } from './load.ts';
import { median, memoryMB, round } from './measure.ts';

const rounds = 5;
const period = { warmUpMs: 300, durationMs: 1_500 };

interface BareServer {
  url: string;
  close(): Promise<void>;
}

/** What a server costs that does nothing but HTTP and JSON. */
async function startBareServer(answer: object): Promise<BareServer> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const asked: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
      const body = Buffer.from(JSON.stringify(asked === null ? null : answer), 'utf8');
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length });
      response.end(body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function summary(results: readonly LoadResult[]): LoadResult {
  return {
    requestsPerSecond: round(median(results.map(({ requestsPerSecond }) => requestsPerSecond))),
    p50Ms: median(results.map(({ p50Ms }) => p50Ms)),
    p99Ms: median(results.map(({ p99Ms }) => p99Ms)),
  };
}

/** Takes the two in turn. The ratio is the median of the ratios of neighbours. */
async function compare(
  load: LoadProcess,
  sides: { base: string; measured: string },
  body: Uint8Array,
  connections: number,
): Promise<{ base: LoadResult; measured: LoadResult; ratio: number; ratios: number[] }> {
  const bodyBase64 = Buffer.from(body).toString('base64');
  const base: LoadResult[] = [];
  const measured: LoadResult[] = [];
  // The first seconds belong to the compiler.
  for (const url of Object.values(sides)) await load.load({ url, bodyBase64, connections, ...period });
  for (let index = 0; index < rounds; index++) {
    base.push(await load.load({ url: sides.base, bodyBase64, connections, ...period }));
    measured.push(await load.load({ url: sides.measured, bodyBase64, connections, ...period }));
  }
  const ratios = measured.map((one, index) =>
    round(one.requestsPerSecond / (base[index]?.requestsPerSecond ?? Number.NaN)),
  );
  return { base: summary(base), measured: summary(measured), ratio: median(ratios), ratios };
}

/** Requests per second with JSON on mnist, at 16 connections. */
export async function benchThroughput(): Promise<object> {
  const { modelPath, inputs } = modelCase('mnist/digit4-opset8');
  const stage = openStage({ threads: 1 });
  const http = await startHttp(stage);
  const load = startLoad();
  try {
    await stage.serve('bench', modelPath);
    const url = `${http.url}/v2/models/bench/infer`;
    const body = encodeInferRequest({ inputs });
    const answer = (await (await fetch(url, { method: 'POST', body })).json()) as object;
    const bare = await startBareServer(answer);
    const { base, measured, ratio, ratios } = await compare(
      load,
      { base: bare.url, measured: url },
      body,
      16,
    );
    await bare.close();
    return {
      bareServer: base,
      agent: measured,
      ratio,
      ratioTarget: 0.6,
      ratios,
      childMB: memoryMB(stage.host.models()[0]?.pid),
      childLimitMB: 80,
    };
  } finally {
    await load.close();
    await http.close();
    await stage.close();
  }
}

const width = { input: 64, output: 10 };

/** A perceptron with a free first dimension: a single row leaves its matrices' columns to be read for nothing. */
function perceptron(hidden: number): StagedFile[] {
  const weights = (name: string, rows: number, columns: number): Tensor => ({
    name,
    datatype: 'FP32',
    shape: [rows, columns],
    data: Float32Array.from({ length: rows * columns }, (_, index) => Math.sin(index) / Math.sqrt(rows)),
  });
  const bytes = writeModel({
    name: 'perceptron',
    inputs: [{ name: 'x', datatype: 'FP32', shape: ['n', width.input] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: ['n', width.output] }],
    nodes: [
      { operator: 'MatMul', inputs: ['x', 'w1'], outputs: ['a'] },
      { operator: 'Relu', inputs: ['a'], outputs: ['b'] },
      { operator: 'MatMul', inputs: ['b', 'w2'], outputs: ['c'] },
      { operator: 'Relu', inputs: ['c'], outputs: ['d'] },
      { operator: 'MatMul', inputs: ['d', 'w3'], outputs: ['y'] },
    ],
    initializers: [
      weights('w1', width.input, hidden),
      weights('w2', hidden, hidden),
      weights('w3', hidden, width.output),
    ],
  });
  return [{ path: 'model.onnx', role: 'model', bytes }];
}

const clients = 32;

/**
 * The same model twice, with and without batches. A batch is half of the clients: one half is answered and asks again
 * while the other is in the model; a batch of all of them leaves every process waiting for the next one.
 */
export async function benchBatching(hidden: number): Promise<object> {
  const stage = openStage({ threads: 1 });
  const http = await startHttp(stage);
  const load = startLoad();
  try {
    await stage.serve('single', perceptron(hidden));
    await stage.serve('batched', perceptron(hidden), { session: { maxBatch: clients / 2, maxDelayMs: 2 } });
    const data = Float32Array.from({ length: width.input }, (_, index) => index % 7);
    const body = encodeInferRequest({
      inputs: [{ name: 'x', datatype: 'FP32', shape: [1, width.input], data }],
    });
    const urlOf = (name: string): string => `${http.url}/v2/models/${name}/infer`;
    const { base, measured, ratio, ratios } = await compare(
      load,
      { base: urlOf('single'), measured: urlOf('batched') },
      body,
      clients,
    );
    const counters = stage.host.models().find(({ as }) => as === 'batched')?.counters;
    const rowsPerRun = round((counters?.inferences ?? 0) / (counters?.executions ?? 1));
    return {
      hidden,
      single: base,
      batched: measured,
      ratio,
      ratioTarget: 2,
      ratios,
      rowsPerRun,
      ...(rowsPerRun > 1 ? {} : { note: 'not built: each request ran alone' }),
    };
  } finally {
    await load.close();
    await http.close();
    await stage.close();
  }
}
