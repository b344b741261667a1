// Why: a registry that has done nearly everything once, for tests that must forget nothing of it.
// Trusts: ingest-world.ts. Must never: write a row by hand where the registry would write one.

import { requestDigest } from '../../registry/telemetry/quality.ts';
import { rolloutFile } from '../fleet/world.ts';
import { recordsOf } from '../telemetry/batch-maker.ts';
import type { IngestWorld, Sender } from '../telemetry/ingest-world.ts';

export const release = 'acme/digits@1.0.0';

/** Two devices with something in nearly every table. */
export async function filled(world: IngestWorld): Promise<[Sender, Sender]> {
  await world.push(release, 1);
  const senders: [Sender, Sender] = [await world.sender(), await world.sender()];
  await world.start(rolloutFile('digits', { release }));
  for (const { device } of senders) await device.obey();
  await world.settle();
  for (const sender of senders) {
    await sender.exchange((await sender.maker.make(recordsOf(2, 0, release))).message);
    const capture = {
      ...{
        kind: 'capture',
        model: 'digits',
        requestId: `r-${sender.id}`,
        reasons: ['random'],
        confidence: 0.5,
      },
      inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 1], data: [7] }],
      outputs: [{ name: 'p', datatype: 'FP32', shape: [1, 1], data: [0.5] }],
    };
    const records = [{ timeMs: world.clock.wall(), release, data: capture }];
    await sender.exchange((await sender.maker.make(records, { class: 'sample' })).message);
    const answered = { requestId: `r-${sender.id}`, prediction: 'cat' };
    await sender.exchange(
      (await sender.maker.make([{ timeMs: world.clock.wall(), release, data: answered }], { class: 'app' }))
        .message,
    );
    const insert = 'INSERT INTO labels VALUES (?, ?, NULL, 0)';
    await world.store.tx(({ sql }) => sql.run(insert, requestDigest(`r-${sender.id}`), `label-${sender.id}`));
  }
  return senders;
}
