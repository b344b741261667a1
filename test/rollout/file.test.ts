// Why: a rollout file is taken as it is meant or refused with line, column and code.
// Trusts: nothing. Must never: check prose beyond the place and the path.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseRolloutFile, regionalFile } from '../../registry/rollout/file.ts';

const valid = `apiVersion: lepton/v1
kind: Rollout
metadata: {name: digits-2}
spec:
  release: acme/digits@2.0.0
  selector: {matchLabels: {site: a}}
  waves: [{percent: 100, soak: 10m}]
  gates: {success: 0.99, minDevices: 2}
  deadlines: {fetching: 30m, unreachable: {after: 30s, counts: ignore}}
  onGateFailure: pause
`;

test('reads YAML and JSON alike, with defaults', () => {
  const yaml = parseRolloutFile(valid);
  assert.ok(yaml.ok);
  assert.deepEqual(yaml.value.spec.waves, [{ percent: 100, soak: 600_000 }]);
  assert.deepEqual(yaml.value.spec.deadlines.unreachable, { after: 30_000, counts: 'ignore' });
  assert.equal(yaml.value.spec.deadlines.probing, 300_000);
  assert.equal(yaml.value.spec.onAbort, 'keep');
  const json = parseRolloutFile(
    JSON.stringify({
      apiVersion: 'lepton/v1',
      kind: 'Rollout',
      metadata: { name: 'digits-2' },
      spec: { release: 'acme/digits@2.0.0' },
    }),
  );
  assert.ok(json.ok);
});

test('regions are stages; each region gets the file without them', () => {
  const lines = `  regions:
    - home
    - {names: [eu-west, us-east], soak: 1h} # after the canary
    - [ap-south]
  onUnreachable: {skipAfter: 2d}`;
  const text = replaced('  onGateFailure: pause', lines);
  const file = parseRolloutFile(text);
  assert.ok(file.ok);
  assert.deepEqual(file.value.spec.regions, [
    { names: ['home'], soak: 0 },
    { names: ['eu-west', 'us-east'], soak: 3_600_000 },
    { names: ['ap-south'], soak: 0 },
  ]);
  assert.deepEqual(file.value.spec.onUnreachable, { skipAfter: 172_800_000 });
  const regional = regionalFile(text);
  assert.ok(regional.ok);
  const { regions: _regions, onUnreachable: _unreachable, ...rest } = file.value.spec;
  assert.deepEqual(regional.value.file.spec, rest);
  assert.equal(/home|us-east|canary/.test(regional.value.text), false);

  for (const [wrong, place] of [
    ['  regions: [[a, b], [b]]', 'spec.regions.1'],
    ['  regions: []', 'spec.regions'],
    ['  onUnreachable: wait', 'spec.onUnreachable'],
    ['  regions: [a, b]\n  selector: {regions: [a]}', 'spec.regions.1'],
  ] as const) {
    const read = parseRolloutFile(
      replaced('  onGateFailure: pause', wrong).replace('  selector: {matchLabels: {site: a}}\n', ''),
    );
    assert.equal(read.ok, false, wrong);
    if (read.ok) continue;
    assert.equal(read.refusal.code, 'rollout-file-invalid');
    assert.ok(read.refusal.detail.includes(place), read.refusal.detail);
  }
});

test('windows are read, with how long a device may defer', () => {
  const read = (line: string) => {
    const file = parseRolloutFile(replaced('  onGateFailure: pause', line));
    assert.ok(file.ok);
    return file.value.spec.windows;
  };
  assert.deepEqual(
    read('  windows: {download: [{days: [sat, sun], from: "22:00", to: "05:00"}], deferMax: 30m}'),
    {
      download: [{ days: ['sat', 'sun'], from: '22:00', to: '05:00' }],
      deferMax: 1_800_000,
    },
  );
  assert.equal(read('  windows: {activate: [{from: "02:00", to: "02:00"}]}')?.deferMax, 4 * 3_600_000);
});

const replaced = (from: string, to: string): string => {
  assert.ok(valid.includes(from));
  return valid.replace(from, to);
};

const malformed: [name: string, text: string, place: string][] = [
  ['no YAML', replaced('{site: a}', '{site: a'), 'line 7, column'],
  ['empty', '', 'line 1, column 1: '],
  ['not a map', '- a\n- b\n', 'line 1, column 1: '],
  ['a key twice', replaced('  onGateFailure: pause', '  release: acme/digits@3.0.0'), 'line 10, column 3: '],
  ['an unknown key', replaced('  onGateFailure', '  onGateFalure'), 'line 10, column 3: spec.onGateFalure: '],
  ['an unknown key inside', replaced('minDevices', 'devices'), 'line 8, column 26: spec.gates.devices: '],
  [
    'both count and percent',
    replaced('{percent: 100,', '{percent: 100, count: 1,'),
    'line 7, column 11: spec.waves.0: ',
  ],
  ['a number out of range', replaced('0.99', '1.99'), 'line 8, column 11: spec.gates.success: '],
  [
    'a window of no day',
    replaced('  onGateFailure: pause', '  windows: {download: [{days: [], from: "22:00", to: "05:00"}]}'),
    'line 10, column 25: spec.windows.download.0.days: ',
  ],
  [
    'a window at 24:00',
    replaced('  onGateFailure: pause', '  windows: {activate: [{from: "22:00", to: "24:00"}]}'),
    'line 10, column 40: spec.windows.activate.0.to: ',
  ],
  ['a bad duration', replaced('10m', '10 minutes'), 'line 7, column 26: spec.waves.0.soak: '],
  ['no release', replaced('  release: acme/digits@2.0.0\n', ''), 'line 4, column 1: spec: '],
  ['no version', replaced('@2.0.0', '@latest'), 'line 5, column 3: spec.release: '],
  ['another apiVersion', replaced('lepton/v1', 'lepton/v9'), 'line 1, column 1: apiVersion: '],
  ['a bad name', replaced('digits-2', 'Digits 2'), 'line 3, column 12: metadata.name: '],
  ['two documents', `${valid}---\n${valid}`, 'line 11, column 1: '],
];
for (const [name, text, place] of malformed) {
  test(`malformed: ${name}`, () => {
    const result = parseRolloutFile(text);
    assert.ok(!result.ok);
    assert.equal(result.refusal.code, 'rollout-file-invalid');
    assert.ok(result.refusal.detail.startsWith(place), result.refusal.detail);
  });
}

const unsupportedInPlace: [section: string, text: string][] = [
  ['spec.gates.agreement', replaced('minDevices: 2', 'agreement: 0.9')],
  [
    'spec.windows',
    replaced(
      'release: acme/digits@2.0.0',
      'windows: {activate: [{from: "02:00", to: "05:00"}]}\n  remove: acme/digits',
    ),
  ],
];
for (const [section, text] of unsupportedInPlace) {
  test(`not applied by this version: ${section}`, () => {
    const result = parseRolloutFile(text);
    assert.ok(!result.ok);
    assert.equal(result.refusal.code, 'rollout-unsupported');
    assert.ok(result.refusal.detail.includes(`: ${section}: `), result.refusal.detail);
  });
}

test('aliases do not explode', () => {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
  for (let level = 1; level < 9; level += 1) {
    lines.push(`a${level}: &a${level} [${Array.from({ length: 10 }, () => `*a${level - 1}`).join(', ')}]`);
  }
  const result = parseRolloutFile(lines.join('\n'));
  assert.ok(!result.ok);
  assert.equal(result.refusal.code, 'rollout-file-invalid');
});

test('any text is answered with a value and a place', () => {
  const edit = fc.tuple(fc.nat(valid.length), fc.nat(8), fc.string({ maxLength: 6 }));
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
      let text = valid;
      for (const [at, gone, put] of edits) text = text.slice(0, at) + put + text.slice(at + gone);
      const result = parseRolloutFile(text);
      if (!result.ok) assert.match(result.refusal.detail, /^line [1-9]\d*, column [1-9]\d*: ./s);
    }),
    { numRuns: 500 },
  );
});
