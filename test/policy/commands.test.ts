// Why: the policy from a file to a refusal, through the program that people use.
// Trusts: a registry on real ports, `lepton` as a process. Must never: leave a file behind.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { policyBundleSchema } from '../../shared/wire/region-policy.ts';
import { residencyReportSchema } from '../../shared/wire/residency-report.ts';
import { workplace } from '../support/processes.ts';
import { openTestRegistry, testRegion } from '../support/registry.ts';
import { policyText } from './files.ts';

const spec = `flows:
- {id: logs-to-us, classes: [log], destinations: [us-east], allow: true, because: vendor support}`;

test('lepton policy: check, bundle, sign, put, show; a token of another region is refused; the report says so', async () => {
  const place = workplace('policy');
  try {
    const { lepton, registry } = await openTestRegistry(place, { loaded: true });
    const file = place.path('policy.yaml');
    const write = (text: string): void => writeFileSync(file, text);

    write(policyText('flows: [', { region: testRegion }));
    assert.match((await lepton(['policy', 'check', file], 2)).stderr, /policy-file-invalid/);
    write(policyText(`${spec}\nrequirePurpose: true`, { region: testRegion }));
    const problems = await lepton(['policy', 'check', file, '--json'], 1);
    assert.deepEqual((problems.json() as { ok: boolean }).ok, false);
    write(policyText(spec, { region: testRegion }));
    const checked = await lepton(['policy', 'check', file, '--explain', 'log:us-east']);
    assert.match(checked.stdout, /WARNING flows\/logs-to-us: line 6, column 5: RAW TELEMETRY LEAVES: log/);
    assert.match(checked.stdout, /log to us-east: allowed by flows\/logs-to-us: “vendor support”/);

    // A holder without a registry; the registry of a development adds what is missing.
    const bundle = place.path('bundle.json');
    const seed = new Uint8Array(32).fill(5);
    writeFileSync(place.path('key.pem'), pkcs8PemFromSeed(seed));
    await lepton(['policy', 'put', file, '--out', bundle]);
    const signed = await lepton(['policy', 'sign', bundle, '--key', place.path('key.pem')]);
    assert.match(signed.stdout, /logs-to-us +log +us-east +allow +vendor support/);
    const { envelope } = policyBundleSchema.parse(JSON.parse(readFileSync(bundle, 'utf8')));
    assert.deepEqual(
      envelope.signatures.map(({ keyid }) => keyid),
      [signerFromSeed(seed, 'node').keyId],
    );
    assert.match((await lepton(['policy', 'put', bundle])).stdout, /in force:/);
    assert.match((await lepton(['policy', 'show'])).stdout, /policy law, version 1, of region eu-west/);

    const bob = { user: 'bob', role: 'operator', namespace: null, ttlMs: null, atRegion: 'us-east' } as const;
    const { token } = await registry.parts.access.create(bob);
    const refused = await lepton(['telemetry', 'query', '--json', '--token', token], 1);
    const { error } = refused.json() as { error: { code: string; rule: string } };
    assert.deepEqual([error.code, error.rule], ['policy-denied', 'default/raw-stays']);
    const out = ['--out', place.path('out.ndjson'), '--to', 'us-east'];
    await lepton(['telemetry', 'export', '--class', 'log', ...out]);

    const report = await lepton(['report', 'residency', '--format', 'json', '--since', '2d']);
    const facts = residencyReportSchema.parse(report.json());
    assert.deepEqual(
      facts.left.map((one) => [one.class, one.destination, one.rule, one.requests]),
      [['log', 'us-east', 'flows/logs-to-us', 1]],
    );
    assert.equal(facts.refused.find((one) => one.class === 'app')?.requests, 1);
  } finally {
    await place.close();
  }
});
