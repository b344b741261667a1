// Why: topics and filters that almost belong to a device: no wildcard and nobody else's topic is ever granted.
// Trusts: fast-check. Must never: know the rules by the code that it tests.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type BusIdentity,
  devicePublishes,
  deviceSubscribes,
  deviceTopic,
  enrolReplyTopic,
  enrolRequestTopic,
  filterMatches,
  mayPublish,
  maySubscribe,
  parseTopic,
  tufTimestampTopic,
} from '../../shared/wire/topics.ts';

const region = 'eu';
const mine = 'd'.repeat(32);
const other = 'e'.repeat(32);
const claim = 'a'.repeat(20);

const topic = fc.oneof(
  fc
    .constantFrom(mine, other, '', '+', '#', '../d')
    .chain((device) =>
      fc
        .constantFrom(...devicePublishes, ...deviceSubscribes)
        .map((channel) => deviceTopic(region, device, channel)),
    ),
  fc.constantFrom(
    tufTimestampTopic(region),
    tufTimestampTopic('us'),
    enrolRequestTopic(region, claim, '1'),
    enrolReplyTopic(region, claim, '1'),
    enrolReplyTopic(region, '+', '1'),
    '$SYS/broker',
    '#',
    '+/+/+/+/+/+',
  ),
);

const change = fc.record({
  at: fc.nat(),
  drop: fc.nat(3),
  put: fc.constantFrom('', '/', '+', '#', '$', '\0', 'é', 'd', other),
});
const topics = fc.tuple(topic, fc.array(change, { maxLength: 3 })).map(([text, changes]) =>
  changes.reduce((now, { at, drop, put }) => {
    const where = now.length === 0 ? 0 : at % (now.length + 1);
    return now.slice(0, where) + put + now.slice(where + drop);
  }, text),
);

const identities: BusIdentity[] = [
  { kind: 'device', deviceId: mine },
  { kind: 'device', deviceId: mine, expired: true },
  { kind: 'claim', claimId: claim, attempt: '1' },
];
const runs = { numRuns: Number(process.env['LEPTON_FUZZ_SECONDS'] ?? 12) > 60 ? 2_000_000 : 30_000 };

test('topics: what is granted is written out here, character by character', () => {
  const own = (channels: readonly string[]): string[] =>
    channels.map((name) => `lepton/1/${region}/d/${mine}/${name}`);
  const lists = [
    {
      publish: own(devicePublishes),
      subscribe: [...own(deviceSubscribes), `lepton/1/${region}/tuf/timestamp`],
    },
    { publish: own(['renew', 'time']), subscribe: own(['renew/reply', 'time/reply']) },
    {
      publish: [`lepton/1/${region}/enroll/${claim}/1/request`],
      subscribe: [`lepton/1/${region}/enroll/${claim}/1/reply`],
    },
  ];
  fc.assert(
    fc.property(topics, fc.boolean(), (text, retain) => {
      parseTopic(text);
      for (const [index, identity] of identities.entries()) {
        const publishes = lists[index]?.publish.includes(text) && (!retain || text.endsWith('/presence'));
        assert.equal(mayPublish(identity, region, text, retain), publishes ?? false, `publish ${text}`);
        assert.equal(
          maySubscribe(identity, region, text),
          lists[index]?.subscribe.includes(text),
          `subscribe ${text}`,
        );
        // However a broker reads it, a filter that is granted reaches no topic of another device.
        if (maySubscribe(identity, region, text))
          assert.ok(!filterMatches(text, deviceTopic(region, other, 'desired')), text);
      }
    }),
    runs,
  );
});
