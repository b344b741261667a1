// Why: what serving costs beside its baseline in the same run: a request through HTTP and child beside raw
// `session.run`, requests per second beside a bare server, batches beside single runs, memory beside a bare node.
// Trusts: the data folder's cases. Must never: compare numbers of two different runs.

import { execFileSync } from 'node:child_process';
import { openSession } from '../../agent/inference/session.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { encodeBinaryRequest, jsonLengthHeader } from '../../shared/wire/oip-binary.ts';
import { encodeInferRequest } from '../../shared/wire/oip-json.ts';
import { tensorToBytes } from '../../shared/wire/tensors.ts';
import { openStage, startHttp } from '../inference/staging.ts';
import { modelCase } from '../support/cases.ts';
import { type LoadCommand, type LoadProcess, startLoad } from './load.ts';
import { measure, memoryMB, ratioOf, round, timed } from './measure.ts';

/** Opens its one connection; requests follow one at a time. */
const singly = { connections: 1, warmUpMs: 0, durationMs: 0 };

async function clientOf(command: Omit<LoadCommand, keyof typeof singly>): Promise<LoadProcess> {
  const client = startLoad();
  await client.load({ ...singly, ...command });
  return client;
}

/** One request at a time, through ever more of the way. One thread on both sides. */
export async function benchModel(name: string, rounds: number): Promise<object> {
  const { modelPath, inputs, fetch } = modelCase(name);
  const stage = openStage({ threads: 1 });
  const http = await startHttp(stage);
  const clients: LoadProcess[] = [];
  try {
    const start = systemClock.mono();
    await stage.serve('bench', modelPath);
    const loadToServingMs = round(systemClock.mono() - start);
    const session = await openSession(modelPath, { threads: 1, providers: ['cpu'], clock: systemClock });
    const heads = inputs.map((tensor) => ({
      head: { name: tensor.name, datatype: tensor.datatype, shape: tensor.shape },
      bytes: tensorToBytes(tensor),
    }));
    const url = `${http.url}/v2/models/bench/infer`;
    const json = Buffer.from(encodeInferRequest({ inputs }));
    const message = encodeBinaryRequest({ inputs, parameters: { binary_data_output: true } });
    const binary = Buffer.concat(message.pieces);
    const overJson = await clientOf({ url, bodyBase64: json.toString('base64') });
    clients.push(overJson);
    const overBinary = await clientOf({
      url,
      bodyBase64: binary.toString('base64'),
      headers: {
        'content-type': 'application/octet-stream',
        [jsonLengthHeader]: String(message.jsonBytes),
      },
    });
    clients.push(overBinary);
    const times = await measure(rounds, {
      rawSession: timed(() => session.run(heads, fetch)),
      throughHost: timed(async () => unwrap(await stage.host.infer('bench', null, { inputs }))),
      overHttpBinary: () => overBinary.once(),
      overHttpJson: () => overJson.once(),
    });
    const { rawSession, throughHost, overHttpBinary, overHttpJson } = times;
    const pid = stage.host.models()[0]?.pid;
    return {
      ...times,
      ratioToRaw: {
        throughHost: ratioOf(throughHost, rawSession),
        overHttpBinary: ratioOf(overHttpBinary, rawSession),
        overHttpJson: ratioOf(overHttpJson, rawSession),
      },
      addedToRawMs: {
        throughHost: round(throughHost.p50Ms - rawSession.p50Ms),
        overHttpBinary: round(overHttpBinary.p50Ms - rawSession.p50Ms),
        overHttpJson: round(overHttpJson.p50Ms - rawSession.p50Ms),
      },
      requestBytes: { json: json.length, binary: binary.length },
      childMB: memoryMB(pid),
      childPeakMB: memoryMB(pid, 'VmHWM'),
      loadToServingMs,
    };
  } finally {
    for (const client of clients) await client.close();
    await http.close();
    await stage.close();
  }
}

/** The child with mnist loaded and before any request, beside a node that does nothing. */
export async function benchChildAtRest(): Promise<object> {
  const bareNodeMB = Number(
    execFileSync(process.execPath, ['-e', 'console.log(process.memoryUsage.rss() / 1e6)'], {
      encoding: 'utf8',
    }),
  );
  const stage = openStage({ threads: 1 });
  try {
    await stage.serve('rest', modelCase('mnist/digit4-opset8').modelPath);
    return {
      bareNodeMB: round(bareNodeMB),
      childMB: memoryMB(stage.host.models()[0]?.pid),
      childLimitMB: 80,
    };
  } finally {
    await stage.close();
  }
}
