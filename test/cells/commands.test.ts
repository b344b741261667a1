// Why: cells go from region to region over their real doors, and `lepton cells` and `lepton report models` show them.
// Trusts: test/regions/support.ts for regions, test/support for processes. Must never: compare layout beyond what is found in it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCellRecords } from '../../registry/cells/records.ts';
import { mergedListSchema } from '../../shared/wire/cells.ts';
import { modelsReportSchema } from '../../shared/wire/model-report.ts';
import { joinRegion, startRegion, until } from '../regions/support.ts';
import { leptonRunner, workplace } from '../support/processes.ts';
import { dayMs, publishing, releases, tell, threeDays } from './scene.ts';

test('commands: cells of two regions, listed, shown and added up, and the report', async (t) => {
  const place = workplace('cells');
  t.after(() => place.close());
  const home = await startRegion(t, 'home');
  const south = await joinRegion(t, home, 'south');
  const firstDay = Math.floor(Date.now() / dayMs) - 6;
  for (const { registry } of [home, south]) {
    await tell(registry.parts, threeDays(firstDay));
    assert.ok((await publishing(registry.parts).closeDue()) >= 3);
  }
  const { parts, httpUrl, adminToken } = home.registry;
  const records = createCellRecords({ ...parts, profiles: parts.fleet.evidence.profiles });
  const days = { fromDay: firstDay, untilDay: firstDay + 2 };
  await until(
    'the cells are at home',
    async () => (await records.all({ ...days, region: 'south' })).length === 6,
  );

  const lepton = leptonRunner(place, { http: httpUrl, token: adminToken }, true);
  const day = new Date(firstDay * dayMs).toISOString().slice(0, 10);
  const [list, merged, one, report] = await Promise.all([
    lepton(['cells', 'list']),
    lepton(['cells', 'list', '--all-regions', '--model', 'acme/pump', '--json']),
    lepton(['cells', 'show', releases[0], '--day', day, '--region', 'south']),
    lepton(['report', 'models', '--format', 'json']),
  ]);
  for (const region of ['home', 'south'])
    assert.match(list.stdout, new RegExp(`${day} +${region} +${releases[0]} +20\\+ +400 +10`));
  assert.match(list.stdout, /cells\/complement/);
  assert.deepEqual(
    mergedListSchema
      .parse(merged.json())
      .merged.map(({ subject, regions, answered }) => [subject, regions.join(), answered]),
    [
      [releases[0], 'home,south', 2_400],
      [releases[1], 'home,south', 2_040],
    ],
  );
  assert.match(one.stdout, /south[\s\S]*bad-input 10/);
  // Devices told of releases that this catalogue does not have: they are in no report.
  assert.deepEqual(modelsReportSchema.parse(report.json()).models, []);
});
