// Why: whoever asked for an erasure can check its certificate without trusting the registry that hands it out.
// Trusts: the real CLI, registry and agent. Must never: accept a certificate that was touched.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signErasure } from '../../shared/trust/erasure.ts';
import { type ErasureStatement, erasureSchema } from '../../shared/wire/erasure.ts';
import { makeClaim } from '../support/fleet.ts';
import { leptonRunner, startTestAgent, startTestRegistry, workplace } from '../support/processes.ts';
import { role, signerNamed } from '../trust/catalogue-fixture.ts';
import { deviceId, regionRoot } from '../trust/region-fixture.ts';

test('the certificate of an erasure is checked against the region’s pinned root, with and without a registry', async () => {
  const place = workplace('erasure-certificate');
  try {
    const registry = await startTestRegistry(place);
    const claim = await makeClaim(place, registry);
    const { regionRootSha256 } = JSON.parse(readFileSync(claim, 'utf8')) as { regionRootSha256: string };
    await startTestAgent(place, claim);
    const listed = await registry.lepton(['devices', 'list', '--json']);
    const [device] = JSON.parse(listed.stdout) as { id: string }[];
    assert.ok(device);
    const file = place.path('certificate.json');
    await registry.lepton(['telemetry', 'erase', device.id, '--reason', 'asked for', '--out', file]);

    const verify = ['telemetry', 'verify-erasure'];
    const pin = ['--region-root-sha256', regionRootSha256];
    const erasure = erasureSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
    // What the device has sent by itself until then.
    const { records, batches } = erasure.statement;
    assert.ok(records < 100);
    const { stdout } = await registry.lepton([...verify, file, ...pin]);
    const counts = `${records} records? in ${batches} batch(es)? and \\d+ key\\(s\\) of ${device.id}`;
    assert.match(stdout, new RegExp(counts));
    assert.match(stdout, /asked for by .*: asked for\n.*region root 1/);

    const root = await fetch(`${registry.http}/api/v1/metadata/region/1.root.json`, {
      headers: { authorization: `Bearer ${registry.token}` },
    });
    assert.ok(root.ok);
    mkdirSync(place.path('roots'));
    writeFileSync(place.path('roots/1.root.json'), Buffer.from(await root.arrayBuffer()));
    const alone = await registry.lepton([...verify, file, ...pin, '--roots', place.path('roots'), '--json']);
    const said = JSON.parse(alone.stdout) as { statement: { deviceId: string }; regionRoot: number };
    assert.deepEqual([said.statement.deviceId, said.regionRoot], [device.id, 1]);

    const fails = async (args: string[], exit: number, words: RegExp): Promise<void> => {
      assert.match((await registry.lepton([...verify, ...args], exit)).stderr, words);
    };
    await fails([file, '--region-root-sha256', '0'.repeat(64)], 1, /the first region root is/);
    const more = Buffer.from(erasure.certificate.payload, 'base64')
      .toString()
      .replace(`"records":${records}`, '"records":999');
    assert.ok(more.includes('"records":999'));
    const touched = {
      ...erasure,
      certificate: { ...erasure.certificate, payload: Buffer.from(more).toString('base64') },
    };
    writeFileSync(place.path('touched.json'), JSON.stringify(touched));
    await fails([place.path('touched.json'), ...pin], 1, /erasure-invalid/);
    // What stands beside the certificate is nobody's word.
    const beside = { ...erasure, statement: { ...erasure.statement, records: 999 } };
    writeFileSync(place.path('beside.json'), JSON.stringify(beside));
    const shown = (await registry.lepton([...verify, place.path('beside.json'), ...pin])).stdout;
    assert.match(shown, new RegExp(counts));
    writeFileSync(place.path('none.json'), '{}');
    await fails([place.path('none.json'), ...pin], 2, /no certificate of an erasure/);
  } finally {
    await place.close();
  }
});

test('a certificate outlives the key that signed it: the root of that day stands behind it', async () => {
  const place = workplace('erasure-rotated');
  try {
    // Nobody listens there, and nobody is asked.
    const lepton = leptonRunner(place, { http: 'http://127.0.0.1:9', token: 'none' });
    const roots = place.path('roots');
    mkdirSync(roots);
    const first = regionRoot();
    writeFileSync(`${roots}/1.root.json`, first);
    writeFileSync(`${roots}/2.root.json`, regionRoot({ version: 2, ack: role(1, signerNamed('later ack')) }));
    const statement: ErasureStatement = {
      ...{ schemaVersion: 1, erasureId: 'e1', deviceId, region: 'eu', untilMs: 5, keys: [] },
      ...{ batches: 1, records: 2, requestedBy: 'alice', reason: null, doneAtMs: 6 },
    };
    const write = (name: string, signer: string): string => {
      const certificate = signErasure(statement, signerNamed(signer));
      writeFileSync(place.path(name), JSON.stringify({ statement, certificate }));
      return place.path(name);
    };
    const verify = [
      'telemetry',
      'verify-erasure',
      '--roots',
      roots,
      '--region-root-sha256',
      sha256Hex(first),
    ];
    const { stdout } = await lepton([...verify, write('old.json', 'ack')]);
    assert.match(stdout, /signed under region root 1; 2 is in force now/);
    assert.match((await lepton([...verify, write('new.json', 'later ack')])).stdout, /region root 2$/m);
    assert.match((await lepton([...verify, write('none.json', 'a stranger')], 1)).stderr, /erasure-invalid/);
    // A root that the one before did not sign for is no root, and so is nothing behind it.
    writeFileSync(`${roots}/2.root.json`, regionRoot({ version: 2, region: 'other' }));
    await lepton([...verify, place.path('old.json')], 1);
  } finally {
    await place.close();
  }
});
