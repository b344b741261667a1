// Why: a month offline at a record a second, whole: the file and its cap, what a record costs; and what a backlog's way to the
// region costs requests that are answered meanwhile. Trusts: the real outbox, registry, broker, agent and mnist.
// Must never: compare latencies of two runs, or call a backlog drained that the region did not sign for.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { outboxMigrations } from '../../agent/telemetry/outbox-tables.ts';
import { boxKeyPairFromSeed } from '../../shared/crypto/sealed-box.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { type DeviceView, telemetryCountsSchema } from '../../shared/wire/http.ts';
import { encodeInferRequest } from '../../shared/wire/oip-json.ts';
import { modelCase } from '../support/cases.ts';
import { dataFolder } from '../support/data.ts';
import { makeClaim, pushModel, rollOut, showDevice } from '../support/fleet.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';
import { offlineMonth } from '../telemetry/offline-month.ts';
import { startLoad } from './load.ts';
import { median, round } from './measure.ts';
import { reading } from './telemetry-device.ts';

const monthRecords = 30 * 86_400;
const mib = 1024 * 1024;

/** The whole month into one file, a minute's records in each append. */
export async function benchMonth(): Promise<object> {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-bench-month-'));
  const file = join(folder, 'outbox.sqlite');
  const store = await openStore(file, { synchronous: 'FULL', reclaim: true, migrations: outboxMigrations });
  try {
    const { publicKey } = boxKeyPairFromSeed(systemEntropy.bytes(32));
    const key = { epoch: 1, keyId: 'k', publicKey: Buffer.from(publicKey).toString('hex') };
    const month = await offlineMonth({
      ...{
        store,
        file,
        records: monthRecords,
        startMs: Date.UTC(2026, 0, 1),
        recordsPerAppend: 60,
        points: 10,
      },
      owner: { deviceId: 'a'.repeat(32), region: 'eu', key },
      make: (second) => ({ className: 'app', record: reading(second) }),
    });
    const { producedRecords, droppedRecords, dropped } = month.counters;
    await month.outbox.close();
    return {
      records: monthRecords,
      capMiB: limits.outboxBytesMax / mib,
      fileMaxMiB: round(month.fileBytesMax / mib),
      logMaxMiB: round(month.logBytesMax / mib),
      sizesMiB: month.sizes.map(({ fileBytes }) => round(fileBytes / mib)),
      ...{ producedRecords, droppedRecords, dropped, refused: month.refused },
      plainBytesPerRecord: round(month.plainBytes / monthRecords),
      writtenBytesPerRecord: round(month.writtenBytes / monthRecords),
    };
  } finally {
    await store.close();
    rmSync(folder, { recursive: true });
  }
}

const rounds = 5;
const backlogRecords = 120_000;
const recordsPerPost = 2_000;
const loadMs = 10_000;

/** Requests one at a time: while a backlog goes to its region, and when nothing waits, in turns. */
export async function benchDrain(): Promise<object> {
  const place = workplace('bench-offline');
  const client = startLoad();
  try {
    const registry = await startTestRegistry(place);
    const agent = await startTestAgent(place, await makeClaim(place, registry));
    await pushModel(registry, dataFolder('models/mnist/mnist-opset8.onnx'), 'acme/mnist@1.0.0');
    await rollOut(place, registry, 'acme/mnist@1.0.0');
    const bodyBase64 = Buffer.from(
      encodeInferRequest({ inputs: modelCase('mnist/digit4-opset8').inputs }),
    ).toString('base64');
    const load = () =>
      client.load({
        ...{ url: `${agent.http}/v2/models/mnist/infer`, bodyBase64 },
        ...{ connections: 1, warmUpMs: 500, durationMs: loadMs },
      });
    const outbox = async (): Promise<NonNullable<DeviceView['outbox']> | null> =>
      (await showDevice(registry, agent.id)).outbox;
    const stored = async (): Promise<number> => {
      const answer = await fetch(`${registry.http}/api/v1/telemetry/counts?device=${agent.id}`, {
        headers: { authorization: `Bearer ${registry.token}` },
      });
      const counts = z.array(telemetryCountsSchema).parse(await answer.json());
      return counts[0]?.records ?? 0;
    };
    let made = 0;
    const seen = {
      rest: { p50: [] as number[], p99: [] as number[] },
      drain: { p50: [] as number[], p99: [] as number[] },
    };
    const drainedInLoad: number[] = [];
    const add = (side: 'rest' | 'drain', { p50Ms, p99Ms }: { p50Ms: number; p99Ms: number }): void => {
      seen[side].p50.push(p50Ms);
      seen[side].p99.push(p99Ms);
    };
    for (let at = 0; at < rounds; at += 1) {
      await registry.daemon.stop();
      for (let left = backlogRecords; left > 0; left -= recordsPerPost) {
        const from = made;
        made += recordsPerPost;
        const lines = Array.from({ length: recordsPerPost }, (_, one) =>
          JSON.stringify(reading(from + one).data),
        ).join('\n');
        const posted = await fetch(`${agent.http}/telemetry/v1/records`, { method: 'POST', body: lines });
        if (!posted.ok) throw new Error(`${posted.status}: ${await posted.text()}`);
        await posted.arrayBuffer();
      }
      await registry.restart();
      const present = await stored();
      await until('the backlog has begun to arrive', async () => (await stored()) > present, 120_000);
      const before = await stored();
      add('drain', await load());
      drainedInLoad.push((await stored()) - before);
      await until(
        'the backlog is stored',
        async () => {
          const now = await outbox();
          return now !== null && now.acknowledgedRecords >= made && now.pendingBatches === 0 ? true : null;
        },
        120_000,
      );
      add('rest', await load());
    }
    const { rest, drain } = seen;
    const ratio = (of: 'p50' | 'p99'): number =>
      round(median(drain[of].map((value, at) => value / (rest[of][at] ?? Number.NaN))));
    return {
      rounds,
      backlogRecords,
      drainedInLoad,
      restMs: { p50: round(median(rest.p50)), p99: round(median(rest.p99)) },
      drainMs: { p50: round(median(drain.p50)), p99: round(median(drain.p99)) },
      p99sMs: { rest: rest.p99.map(round), drain: drain.p99.map(round) },
      ratio: { p50: ratio('p50'), p99: ratio('p99') },
      p99RatioPromisedMax: 1.2,
    };
  } finally {
    await client.close();
    await place.close();
  }
}
