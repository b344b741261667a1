// Why: what a policy answers, rule by rule, with the rule's name; and that nothing raw leaves where nobody wrote that it may.
// Trusts: nothing. Must never: look at a decision without its rule.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readCardFields } from '../../registry/policy/card-fields.ts';
import { isListed } from '../../registry/policy/licences.ts';
import { checkPolicyMeaning } from '../../registry/policy/policy-check.ts';
import { decideFlow, decideRelease, decideRetention, isRaw } from '../../registry/policy/region-decisions.ts';
import { readYamlFile } from '../../registry/policy/yaml-file.ts';
import { flowClasses, regionPolicySchema } from '../../shared/wire/region-policy.ts';
import { telemetryClasses } from '../../shared/wire/telemetry.ts';
import { policyOf, policyText } from './files.ts';

const flows = `flows:
- {id: logs-out, classes: [log], destinations: [us-east], allow: true, because: vendor reads logs}
- {id: nothing-there, classes: [log, cells, event], destinations: [us-east, cn-north], allow: false, because: no adequacy}
- {id: events-out, classes: [event], destinations: ['*'], allow: true, because: contract 7}
cells: {devicesMin: 12}`;

test('flows: the first rule that names class and destination decides; the defaults behind', () => {
  const policy = policyOf(flows);
  const cases: [string, string, boolean, string][] = [
    ['log', 'us-east', true, 'flows/logs-out'],
    ['log', 'cn-north', false, 'flows/nothing-there'],
    ['log', 'eu-west', false, 'default/raw-stays'],
    ['event', 'us-east', false, 'flows/nothing-there'],
    ['event', 'eu-west', true, 'flows/events-out'],
    ['sample', 'us-east', false, 'default/raw-stays'],
    ['cells', 'us-east', false, 'flows/nothing-there'],
    ['cells', 'eu-west', true, 'default/cells'],
    ['audit-heads', 'us-east', true, 'default/audit-heads'],
    ['sample', 'test', true, 'default/own-region'],
    ['log', 'test', true, 'default/own-region'],
  ];
  for (const [flow, destination, allowed, rule] of cases) {
    const name = flowClasses.find((one) => one === flow);
    assert.ok(name);
    const decision = decideFlow(policy, 'test', name, destination);
    assert.deepEqual([decision.allowed, decision.rule], [allowed, rule], `${flow} to ${destination}`);
    assert.notEqual(decision.reason, '');
  }
  assert.match(decideFlow(policy, 'test', 'cells', 'eu-west').reason, /12 devices/);
  assert.equal(decideFlow(policy, 'test', 'log', 'us-east').reason, 'vendor reads logs');
});

test('flows: without a policy raw telemetry stays and the rest goes', () => {
  for (const flow of flowClasses) {
    const { allowed, rule } = decideFlow(null, 'test', flow, 'elsewhere');
    assert.deepEqual([allowed, rule], isRaw(flow) ? [false, 'default/raw-stays'] : [true, `default/${flow}`]);
  }
});

test('property: raw telemetry leaves only by a rule of the file that allows just that', () => {
  const names = fc.constantFrom('us-east', 'eu-west', 'test', '*');
  const rule = fc.record({
    classes: fc.uniqueArray(fc.constantFrom(...flowClasses), { minLength: 1, maxLength: 4 }),
    destinations: fc.uniqueArray(names, { minLength: 1, maxLength: 3 }),
    allow: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(rule, { maxLength: 6 }),
      fc.constantFrom(...telemetryClasses),
      fc.constantFrom('us-east', 'eu-west', 'cn-north'),
      (rules, kind, destination) => {
        const policy = regionPolicySchema.parse({
          ...{ apiVersion: 'lepton/v1', kind: 'RegionPolicy' },
          metadata: { region: 'test', name: 'law', version: 1 },
          spec: { flows: rules.map((one, at) => ({ id: `r${at}`, because: 'x', ...one })) },
        });
        const { allowed, rule: named } = decideFlow(policy, 'test', kind, destination);
        const fits = policy.spec.flows.filter(
          ({ classes, destinations }) =>
            classes.includes(kind) && (destinations.includes(destination) || destinations.includes('*')),
        );
        assert.equal(allowed, fits[0]?.allow ?? false);
        assert.equal(named, fits[0] === undefined ? 'default/raw-stays' : `flows/${fits[0].id}`);
        if (!policy.spec.flows.some((one) => one.allow)) assert.equal(allowed, false);
        // What is let out is never let out silently.
        const warned = checkPolicyMeaning(policy).filter(({ code }) => code === 'raw-leaves');
        if (allowed) assert.ok(warned.some(({ message }) => message.includes(kind)));
      },
    ),
    { numRuns: 500, seed: 11 },
  );
});

test('retention: by class; what is not named is kept until it is erased', () => {
  const policy = policyOf('retention: {sample: 30d, event: 12h}');
  assert.deepEqual(decideRetention(policy, 'sample'), { ms: 30 * 86_400_000, rule: 'retention/sample' });
  assert.deepEqual(decideRetention(policy, 'event'), { ms: 12 * 3_600_000, rule: 'retention/event' });
  assert.deepEqual(decideRetention(policy, 'log'), { ms: null, rule: 'default/until-erased' });
  assert.deepEqual(decideRetention(null, 'log'), { ms: null, rule: 'default/until-erased' });
});

test('releases: publisher, licence and fields of the card, each refused by its rule', () => {
  const policy = policyOf(`releases:
  publishers: [acme]
  licences: [MIT, apache-2.0]
  requireCard: [intended-use, data.sha256]`);
  const good = 'intended-use: pumps\ndata: {sha256: ab}';
  const cases: [string, string | null, string | null][] = [
    ['acme/pump@1.0.0', `---\nlicence: MIT\n${good}\n---\n# Pump\n`, null],
    [
      'acme/pump@1.0.0',
      `---\r\nlicense: Apache-2.0\r\nintended-use: x\r\ndata:\r\n  sha256: a\r\n---\r\n`,
      null,
    ],
    [
      'acme/pump@1.0.0',
      '{"license": ["MIT", "Apache-2.0"], "intended-use": 1, "data": {"sha256": "x"}}',
      null,
    ],
    ['evil/pump@1.0.0', `---\nlicence: MIT\n${good}\n---\n`, 'releases/publishers'],
    ['acme/pump@1.0.0', null, 'releases/licences'],
    ['acme/pump@1.0.0', '# Pump\n\nLicence: MIT\n', 'releases/licences'],
    ['acme/pump@1.0.0', `---\nlicence: GPL-3.0-only\n${good}\n---\n`, 'releases/licences'],
    ['acme/pump@1.0.0', `---\nlicence: MIT\nlicense: GPL-3.0-only\n${good}\n---\n`, 'releases/licences'],
    ['acme/pump@1.0.0', '---\nlicence: [MIT\n---\n', 'releases/licences'],
    [
      'acme/pump@1.0.0',
      '---\nlicence: MIT\nintended-use: " "\ndata: {sha256: ab}\n---\n',
      'releases/requireCard',
    ],
    ['acme/pump@1.0.0', '---\nlicence: MIT\nintended-use: pumps\ndata: {}\n---\n', 'releases/requireCard'],
  ];
  for (const [releaseId, card, rule] of cases) {
    const bytes = card === null ? null : new TextEncoder().encode(card);
    const decision = decideRelease(policy, { releaseId, card: bytes });
    assert.deepEqual(
      [decision.allowed, rule === null || decision.rule === rule],
      [rule === null, true],
      `${card}`,
    );
  }
  const any = policyOf('');
  assert.equal(decideRelease(any, { releaseId: 'acme/pump@1.0.0', card: null }).allowed, true);
  assert.equal(decideRelease(null, { releaseId: 'acme/pump@1.0.0', card: null }).rule, 'default/any-release');
});

test('cards: hostile ones are refused, not read', () => {
  const read = (card: string | Uint8Array) =>
    readCardFields(typeof card === 'string' ? new TextEncoder().encode(card) : card);
  assert.equal(read(new Uint8Array([0x7b, 0xff])).ok, false);
  assert.equal(read(`---\na: ${'['.repeat(1_000)}\n---\n`).ok, false);
  assert.equal(read(new Uint8Array(1024 * 1024 + 1)).ok, false);
  const proto = read('{"__proto__": {"licence": "MIT"}}');
  assert.ok(proto.ok);
  assert.deepEqual([proto.value.licences, proto.value.field('toString')], [[], undefined]);
});

test('licences: one of several, all of several, and what mixes both only as a whole', () => {
  const listed = ['MIT', 'Apache-2.0', '(A AND B) OR C'];
  const cases: [string, boolean][] = [
    ['mit', true],
    ['GPL-2.0-only OR MIT', true],
    ['GPL-2.0-only AND MIT', false],
    ['MIT AND Apache-2.0', true],
    ['(A and B)  or C', true],
    ['(MIT)', false],
    ['MIT OR X AND Y', false],
    ['', false],
  ];
  for (const [expression, expected] of cases)
    assert.equal(isListed(expression, listed), expected, expression);
});

test('check: shadowed rules, twins, raw classes that leave, purposes, names nobody knows', () => {
  const codes = (spec: string) =>
    checkPolicyMeaning(policyOf(spec)).map(({ level, code, where }) => `${level} ${code} ${where}`);
  const purposes =
    'purposes: [{classes: [event, stats, sample, log, app], purpose: upkeep, lawfulBasis: contract}]';
  assert.deepEqual(codes(purposes), []);
  assert.deepEqual(
    codes(
      `${purposes}
flows:
- {id: a, classes: [log, cells], destinations: ['*'], allow: false, because: x}
- {id: b, classes: [log], destinations: [us-east], allow: true, because: x}
- {id: c, classes: [log, app], destinations: [us-east], allow: false, because: x}
- {id: c, classes: [carried], destinations: [test], allow: false, because: x}
masking: [{do: drop, field: a}, {do: drop, field: [a]}]
releases: {publishers: [], licences: [MIT, Apache 2]}`.replace('Apache 2', 'Apache-2'),
    ),
    [
      'problem never-matches flows/b',
      'warning raw-leaves flows/b',
      'problem duplicate-id flows/c',
      'problem never-matches flows/c',
      'problem duplicate-rule masking/1',
      'problem nothing-allowed releases/publishers',
      'warning unknown-licence releases/licences',
    ],
  );
  const some = 'purposes: [{classes: [event, stats, sample, log], purpose: upkeep, lawfulBasis: consent}]';
  assert.deepEqual(codes(some), ['warning no-purpose retention/app']);
  assert.deepEqual(codes(`${some}\nrequirePurpose: true`), ['problem no-purpose retention/app']);
});

test('files: what is no policy is refused with its place', () => {
  const cases: [string, RegExp][] = [
    [
      policyText('flows: [{id: a, classes: [evnt], destinations: [x], allow: true, because: x}]'),
      /line 5.*classes/,
    ],
    [policyText('retention: {sample: soon}'), /retention.sample.*duration/],
    [policyText('retention: {samples: 30d}'), /samples/],
    [policyText('cells: {devicesMin: 1}'), /devicesMin/],
    [policyText('', { version: 0 }), /version/],
    [policyText('flows: [').trim(), /line/],
    [
      policyText('flows: [{id: a, classes: [log], destinations: [US], allow: true, because: x}]'),
      /name of a region/,
    ],
  ];
  for (const [text, words] of cases) {
    const read = readYamlFile(text, regionPolicySchema, 'policy-file-invalid');
    assert.equal(read.ok, false, text);
    if (!read.ok) assert.match(read.refusal.detail, words);
  }
});
