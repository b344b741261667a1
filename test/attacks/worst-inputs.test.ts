// Why: inputs written by hand to cost the most that a format allows: depth, repetition, pairs to be compared. Chance
// finds them seldom. Trusts: processor time, which other programs do not lengthen.
// Must never: leave out an input that once took long or ended a process.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRecords } from '../../agent/telemetry/records.ts';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { readDeviceRequest } from '../../shared/host/certificates.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { parseTargets, parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import { parseGolden } from '../../shared/wire/golden.ts';
import { assignedReleaseSchema, parseMessage, reportSchema } from '../../shared/wire/messages.ts';
import { parseInferRequest } from '../../shared/wire/oip-json.ts';
import { parseProfile } from '../../shared/wire/profile.ts';
import { encode, HostileRepository } from './hostile-repository.ts';

const slowMs = 250;
const many = 30_000;
const lines = (count: number, line: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => line(index)).join('\n');
const deep = (open: string, close: string, levels = many): string =>
  open.repeat(levels) + close.repeat(levels);
const yaml = (text: string) => () => parseRolloutFile(text);
const assigned = JSON.stringify({
  ...new HostileRepository().assignmentOf('acme/detector/1.0.0'),
  requires: '@',
});
const requiring = (text: string) => () =>
  parseMessage(assignedReleaseSchema, encode(assigned.replace('"@"', text)));

const inputs: Record<string, () => Result<unknown> | Promise<Result<unknown>>> = {
  // This one ended the whole process: the stack ended inside a regular expression of the YAML library.
  'a rollout of 30,000 nested lists': yaml(deep('[', ']')),
  'a rollout of 30,000 open lists': yaml('['.repeat(many)),
  'a rollout of 15,000 nested maps': yaml('{a: '.repeat(many / 2)),
  'a rollout of 30,000 nested items': yaml(`${'- '.repeat(many)}a`),
  'a rollout of 30,000 nested items behind tabs': yaml(`${'-\t'.repeat(many)}a`),
  'a rollout of 30,000 nested keys': yaml('? '.repeat(many)),
  'a rollout of 350 nested lines': yaml(lines(350, (index) => `${' '.repeat(index)}a:`)),
  'a rollout of 6,000 keys': yaml(lines(6_000, (index) => `k${index}: 1`)),
  'a rollout of 60,000 commas': yaml(`[${','.repeat(60_000)}`),
  'a rollout of 4,000 anchors': yaml(lines(4_000, (index) => `- &a${index} x`)),
  'a rollout of 15,000 aliases': yaml(`a: &a x\nb: [${'*a,'.repeat(15_000)}]`),
  'a rollout of 60,000 backslashes': yaml(`"${'\\'.repeat(60_000)}`),
  'a rollout of 60,000 empty lines': yaml(`a: |\n${'\n'.repeat(60_000)} x`),
  // This one overflowed the stack of the schema, which walks any JSON.
  'requirements 20,000 levels deep': requiring(deep('[', ']', 20_000)),
  'requirements of 20,000 members': requiring(`[${'0,'.repeat(20_000)}0]`),
  'a report of 5,000 models': () =>
    parseMessage(reportSchema, encode(`{"models":[${'{},'.repeat(5_000)}{}],"refusals":[]}`)),
  'a golden file 60,000 levels deep': () => parseGolden(encode('['.repeat(60_000)), () => null),
  'an inference request of 12,000 levels': () => parseInferRequest(encode(`{"x":${'{"a":'.repeat(12_000)}`)),
  'a tensor of 60,000 levels': () =>
    parseInferRequest(
      encode(`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":${'['.repeat(60_000)}`),
    ),
  'a tensor of 2^106 elements': () =>
    parseInferRequest(
      encode(
        '{"inputs":[{"name":"x","shape":[9007199254740991,9007199254740991],"datatype":"FP32","data":[]}]}',
      ),
    ),
  'a profile 30,000 levels deep': () => parseProfile(encode(`{"features":${deep('[', ']')}}`)),
  'records 30,000 levels deep': () => parseRecords(encode(`{"a":${'['.repeat(many)}`), 0),
  'a timestamp of 16,000 members': () => parseTimestamp(encode(`{${'"a":1,'.repeat(2_700)}`)),
  'targets of 5,000 levels': () => parseTargets(encode(deep('{"a":', '}', 5_000))),
  // The registry's edge takes no more than 8,192 characters.
  'a certificate request of beginnings': () =>
    readDeviceRequest('-----BEGIN CERTIFICATE REQUEST-----'.repeat(1_700).slice(0, 8_192)),
  'a certificate request of nothing but nesting': () =>
    readDeviceRequest(
      `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from('3080'.repeat(2_900), 'hex').toString('base64')}\n-----END CERTIFICATE REQUEST-----`,
    ),
};

for (const [what, judge] of Object.entries(inputs)) {
  test(what, async () => {
    let best = Number.POSITIVE_INFINITY;
    for (let tries = 0; tries < 3 && best > slowMs; tries += 1) {
      const before = process.cpuUsage();
      const result = await judge();
      const { user, system } = process.cpuUsage(before);
      best = Math.min(best, (user + system) / 1_000);
      if (!result.ok) assert.ok(result.refusal.detail.length <= 2_000);
    }
    assert.ok(best <= slowMs, `${best} ms`);
  });
}
