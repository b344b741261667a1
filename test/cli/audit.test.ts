// Why: holds `lepton audit` as people run it: a real registry, its record in a file, and a check that asks nobody.
// Trusts: the built CLI. Must never: take an exit of 0 for a file that does not hold.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { auditedRegion, pull, rechained, rewrite } from '../audit/region.ts';
import { run, type Workplace, workplace } from '../support/processes.ts';
import { openTestRegistry, testRegion } from '../support/registry.ts';

let place: Workplace;
before(() => {
  place = workplace('audit');
});
after(() => place.close());

test('list, export, verify', async () => {
  const { registry, lepton } = await openTestRegistry(place, { loaded: true });
  await lepton(['tokens', 'create', '--user', 'ann', '--role', 'viewer']);
  const listed = await lepton(['audit', 'list', '--action', 'tokens.create', '--json']);
  const page = JSON.parse(listed.stdout) as {
    entries: { actor: string; address: string; subject: string }[];
  };
  assert.equal(page.entries.length, 1);
  assert.equal(page.entries[0]?.actor, 'user:admin');
  assert.equal(page.entries[0]?.address, '127.0.0.1');
  assert.match((await lepton(['audit', 'list'])).stdout, /audit\.begin .*\n.*tokens\.create /);

  const file = place.path('export.ndjson');
  assert.match((await lepton(['audit', 'export', '--out', file])).stdout, /^2 entries in /);
  const root = place.path('root.json');
  writeFileSync(root, await registry.parts.repository.regionRoot());
  const verify = (...args: string[]) => run('lepton', ['audit', 'verify', ...args], { env: place.env });
  const held = await verify(file, '--root', root, '--json');
  assert.equal(held.code, 0, held.stderr);
  const report = JSON.parse(held.stdout) as { holds: boolean; region: string; entries: number };
  assert.deepEqual([report.holds, report.region, report.entries], [true, testRegion, 2]);
  const trusted = await verify(file);
  assert.equal(trusted.code, 0);
  assert.match(trusted.stdout, /on trust .*: give --root/);
  assert.match(trusted.stdout, /--against/);

  const text = readFileSync(file, 'utf8');
  const edited = place.path('edited.ndjson');
  writeFileSync(edited, text.replace('"actor":"user:admin"', '"actor":"user:other"'));
  const broken = await verify(edited, '--root', root);
  assert.equal(broken.code, 1);
  assert.match(broken.stdout, /edited \(line 3\): entry 2 was edited/);
  assert.equal((JSON.parse((await verify(edited, '--json')).stdout) as { holds: boolean }).holds, false);
  // The next export holds the one before: whoever read everything is written down.
  const again = place.path('again.ndjson');
  await lepton(['audit', 'export', '--out', again]);
  assert.match(readFileSync(again, 'utf8'), /"action":"audit\.export"/);
  // One that vouches for nothing, and files that are none.
  const own = await verify(file, '--against', again);
  assert.deepEqual([own.code, /vouches for nothing here/.test(own.stdout)], [0, true]);
  const missing = await verify(place.path('none.ndjson'));
  assert.deepEqual([missing.code, /input-invalid: cannot read/.test(missing.stderr)], [2, true]);
  assert.equal((await verify(root)).code, 1);
  assert.equal((await verify(file, '--root', file)).code, 1);
});

test('a region that rewrote its record is found with an export of its neighbour', async (t) => {
  const region = await auditedRegion(t, 'eu-north');
  const other = await auditedRegion(t, 'us-east');
  await region.work(4);
  await region.audit.heads.sign();
  await pull(region, other);
  const write = (name: string, lines: readonly string[]): string => {
    const file = place.path(name);
    writeFileSync(file, `${lines.join('\n')}\n`);
    return file;
  };
  const neighbour = write('us-east.ndjson', await other.exported());
  const honest = write('honest.ndjson', await region.exported());
  const entries = (await region.audit.list({ limit: 100 })).entries;
  await rewrite(region, rechained(entries.map((one) => (one.id === 3 ? { ...one, subject: 'x' } : one))));
  const forged = write('forged.ndjson', await region.exported());
  const verify = (...args: string[]) => run('lepton', ['audit', 'verify', ...args], { env: place.env });
  const [good, alone, found] = await Promise.all([
    verify(honest, '--against', neighbour),
    verify(forged),
    verify(forged, '--against', neighbour),
  ]);
  assert.equal(good.code, 0);
  assert.match(good.stdout, /us-east\.ndjson: 1 heads that this region signed before fit/);
  assert.equal(alone.code, 0);
  assert.equal(found.code, 1);
  assert.match(found.stdout, /neighbour .*entry 5 or one before it was rewritten since/);
});
