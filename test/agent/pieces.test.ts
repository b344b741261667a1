// Why: the agent's small parts alone: counters, refusals, stored trust, settings, error lines.
// Trusts: SQLite in memory and a clock moved by hand. Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createBackoff } from '../../agent/bus/backoff.ts';
import { createDoorbell } from '../../agent/bus/doorbell.ts';
import { createRefusals, listRefusals } from '../../agent/bus/refusals.ts';
import { createReporter, type Start, startOf } from '../../agent/bus/reports.ts';
import { parseHostPort, parseLabels, parseLogLevel, parseServer } from '../../agent/cli/settings.ts';
import { agentMigrations } from '../../agent/daemon.ts';
import {
  begun,
  completeEnrolment,
  loadIdentity,
  pendingSeed,
  settleIdentity,
} from '../../agent/trust/identity.ts';
import { loadTrust, saveAssignment, saveCatalogue, saveRoot } from '../../agent/trust/trust-store.ts';
import { publicKeyOf, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { openStore, openStoreFromSnapshot } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Bus, Entropy } from '../../shared/kernel/ports.ts';
import { checkReport, noReportYet } from '../../shared/trust/report.ts';
import { formatError } from '../../shared/wire/cli-output.ts';
import { parseMessage, type ReportedModel, signedMessageSchema } from '../../shared/wire/messages.ts';
import { countingEntropy, handClock, settle, silent } from './hand-clock.ts';

const memoryStore = () => openStore(':memory:', { synchronous: 'FULL', migrations: agentMigrations });

test('refusals: the same one is kept once, ids are never used again, the list is bounded', async () => {
  const store = await memoryStore();
  let recorded = 0;
  const refusals = createRefusals({ store, clock: handClock(), onRecorded: () => (recorded += 1) });
  const first = await refusals.record({ code: 'assignment-replayed', detail: 'x'.repeat(9_999) }, 'one');
  assert.deepEqual(await refusals.record({ code: 'assignment-replayed', detail: 'again' }, 'one'), {
    id: first.id,
    fresh: false,
  });
  assert.equal(recorded, 1);
  for (let index = 0; index < limits.refusalsKept + 5; index += 1) {
    await refusals.record({ code: 'assignment-replayed', detail: 'more' }, `more ${index}`);
  }
  const kept = await store.tx(listRefusals);
  assert.equal(kept.length, limits.refusalsKept);
  assert.equal(kept.at(-1)?.id, first.id + limits.refusalsKept + 5);
  await store.close();
});

test('reports: counters grow over a crash, changes are coalesced, a report always fits the bus', async () => {
  const store = await memoryStore();
  const clock = handClock();
  const seed = new Uint8Array(32).fill(7);
  const deviceId = deviceIdOf(publicKeyOf(seed));
  const sent: Uint8Array[] = [];
  let up = true;
  const bus: Bus & { connected(): boolean } = {
    connected: () => up,
    publish: async (_topic, payload) => {
      if (!up) throw new FleetError('bus-offline', 'no line');
      sent.push(payload);
    },
    subscribe: () => Promise.reject(new Error('not used')),
  };
  const wordy: ReportedModel = {
    name: 'm',
    state: 'idle',
    active: null,
    activeSha256: null,
    candidate: null,
    lastGood: null,
    target: 'acme/model@1.0.0',
    rolloutId: null,
    reason: { code: 'model-invalid', detail: '\u0001'.repeat(2_000) },
    progress: null,
    probe: null,
  };
  const models = Array.from({ length: 64 }, (_, index) => ({ ...wordy, name: `m${index}` }));
  const entropy = countingEntropy();
  let reserved = 0;
  const sessions = new Set<string>();
  const reporterOf = (over: typeof store, start: Start) =>
    createReporter({
      store: over,
      bus,
      signer: signerFromSeed(seed, 'node'),
      deviceId,
      region: 'r',
      agent: () => ({ version: '1', runtime: 'node', arch: 'x64' }),
      timezone: 'UTC',
      outbox: () => null,
      models: () => models,
      start,
      reserve: async (number) => {
        reserved = Math.max(reserved, number);
      },
      trust: () => ({
        epoch: 4,
        verifiedTimeMs: 5,
        clockSource: 'wall',
        held: { root: 1, regionRoot: 2, timestamp: 3, snapshot: 4, targets: 5 },
        certificateExpiresAtMs: 6,
      }),
      clock,
      entropy,
      log: silent,
      everyMs: 60_000,
    });
  let lastCounter = 0;
  const accept = (payload: Uint8Array | undefined): void => {
    assert.ok(payload);
    assert.ok(payload.length <= limits.busMessageBytesMax);
    const message = parseMessage(signedMessageSchema, payload);
    assert.ok(message.ok);
    const { envelope } = message.value;
    const report = checkReport({
      envelope,
      devicePublicKey: publicKeyOf(seed),
      deviceId,
      last: { ...noReportYet, counter: lastCounter },
    });
    assert.ok(report.ok, report.ok ? '' : report.refusal.detail);
    const { epoch, boot, session, clock: byClock, certificateExpiresAtMs } = report.value;
    assert.deepEqual([epoch, boot, certificateExpiresAtMs], [4, 3, 6]);
    assert.equal(byClock?.source, 'wall');
    assert.match(session, /^[0-9a-f]{32}$/);
    sessions.add(session);
    assert.ok(reserved >= report.value.counter, 'its number was reserved before it left');
    lastCounter = report.value.counter;
  };

  const start = startOf(3, entropy);
  const reporter = reporterOf(store, start);
  for (let index = 0; index < 10; index += 1) reporter.changed();
  await settle();
  reporter.changed();
  reporter.changed();
  await settle();
  assert.equal(sent.length, 1, 'the second waits for its gap');
  await clock.advance(200);
  assert.equal(sent.length, 2);
  await clock.advance(200);
  await clock.advance(60_000);
  assert.equal(sent.length, 3, 'one is due by time');
  for (const payload of sent) accept(payload);

  // The counter is durable before the report leaves: a process that died while sending never repeats it.
  const died = await openStoreFromSnapshot(store.snapshot(), { synchronous: 'FULL' });
  const next = startOf(3, entropy);
  const successor = reporterOf(died, next);
  successor.changed();
  await settle();
  accept(sent[3]);

  // Without a line nothing is sent; back on it, the news goes out.
  up = false;
  await clock.advance(200);
  successor.changed();
  await settle();
  assert.equal(sent.length, 4);
  up = true;
  successor.changed();
  await settle();
  accept(sent[4]);
  const ends = [reporter.stop(), successor.stop()];
  await clock.advance(60_000);
  await Promise.all(ends);
  // The line begins anew, as where a move waits for an update: still the same start.
  const ended = sent.length;
  entropy.bytes(1);
  const anew = reporterOf(died, next);
  anew.changed();
  await settle();
  assert.equal(sent.length, ended + 1);
  accept(sent.at(-1));
  assert.equal(sessions.size, 2, 'one a start');
  const end = anew.stop();
  await clock.advance(60_000);
  await end;
  await store.close();
  await died.close();
});

test('identity: one key waits for its certificate, however often the enrolment is cut off', async () => {
  const store = await memoryStore();
  const entropy = countingEntropy();
  const seed = await pendingSeed(store, entropy);
  const after = await openStoreFromSnapshot(store.snapshot(), { synchronous: 'FULL' });
  assert.deepEqual(await pendingSeed(after, entropy), seed);
  assert.equal(await loadIdentity(after), null);
  assert.equal(await loadTrust(after), null);

  const identity = {
    seed,
    deviceId: deviceIdOf(publicKeyOf(seed)),
    certificate: 'pem',
    region: 'r',
    brokerUrl: 'mqtts://b:1',
    fleetCa: 'ca',
    labels: { a: 'b' },
    telemetryEpoch: 3,
    claimId: 'c',
  };
  const roots = { catalogue: Uint8Array.of(1), region: Uint8Array.of(2) };
  await completeEnrolment(after, identity, roots);
  assert.deepEqual(await loadIdentity(after), begun(identity));
  assert.notDeepEqual(await pendingSeed(after, entropy), seed, 'the next enrolment makes a key of its own');
  await settleIdentity(after);
  assert.equal((await loadIdentity(after))?.settled, true);

  // What was verified is kept for the same root and forgotten for another; an assignment never carries over.
  const state = {
    root: Uint8Array.of(1),
    timestamp: Uint8Array.of(3),
    snapshot: Uint8Array.of(4),
    targets: Uint8Array.of(5),
    delegated: { acme: Uint8Array.of(6), globex: Uint8Array.of(7) },
  };
  await saveCatalogue(after, state);
  await saveAssignment(after, { epoch: 9, payloadSha256: 'aa', envelope: '{}' });
  await saveAssignment(after, { epoch: 10, payloadSha256: 'bb', envelope: '{}' });
  const held = await loadTrust(after);
  assert.deepEqual(held?.catalogue, state);
  assert.deepEqual(held?.assignment, { epoch: 10, payloadSha256: 'bb', envelope: '{}' });
  await saveCatalogue(after, { ...state, delegated: { acme: Uint8Array.of(8) } });
  assert.deepEqual((await loadTrust(after))?.catalogue.delegated, { acme: Uint8Array.of(8) });

  await completeEnrolment(after, identity, roots);
  assert.deepEqual((await loadTrust(after))?.catalogue.timestamp, Uint8Array.of(3));
  assert.equal((await loadTrust(after))?.assignment, null);
  await completeEnrolment(after, identity, { ...roots, catalogue: Uint8Array.of(99) });
  const anew = await loadTrust(after);
  assert.deepEqual(anew?.catalogue, {
    root: Uint8Array.of(99),
    timestamp: null,
    snapshot: null,
    targets: null,
    delegated: {},
  });
  await saveRoot(after, Uint8Array.of(100));
  assert.deepEqual((await loadTrust(after))?.catalogue.root, Uint8Array.of(100));
  await store.close();
  await after.close();
});

test('doorbell: many rings are one wake-up, and none is lost while the loop is busy', async () => {
  const clock = handClock();
  const bell = createDoorbell(clock);
  const waiting = bell.wait(1_000);
  bell.ring();
  bell.ring();
  assert.equal(await waiting, true);
  bell.ring();
  assert.equal(await bell.wait(1_000), true);
  const quiet = bell.wait(1_000);
  await clock.advance(1_000);
  assert.equal(await quiet, false);
});

test('backoff: full jitter under a doubling ceiling, for ever', () => {
  const most: Entropy = { u32: () => 0xffffffff, bytes: (n) => new Uint8Array(n) };
  const backoff = createBackoff(most, 500, 60_000);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => backoff.nextMs()),
    [500, 1_000, 2_000, 4_000],
  );
  for (let attempt = 0; attempt < 2_000; attempt += 1) assert.ok(backoff.nextMs() <= 60_000);
  backoff.reset();
  assert.equal(backoff.nextMs(), 500);
  const least: Entropy = { u32: () => 0, bytes: (n) => new Uint8Array(n) };
  assert.equal(createBackoff(least).nextMs(), 0);
});

test('errors: one line with code and remedy, whatever was thrown', () => {
  const plain = formatError(new FleetError('claim-expired', 'claim abc is over'));
  assert.equal(
    plain.line,
    'lepton: claim-expired: claim abc is over; make a new claim: lepton claims create',
  );
  assert.equal(plain.exit, 1);
  assert.deepEqual(plain.json.error.code, 'claim-expired');
  const forged = formatError(
    new FleetError('config-invalid', 'a\nlepton: fine\u001b[2J', { hint: 'do\r\nthis' }),
  );
  assert.ok([...forged.line].every((letter) => letter >= ' '));
  assert.equal(forged.exit, 2);
  assert.match(formatError('thrown text').line, /^lepton: internal: thrown text; /);
  assert.ok(formatError(new Error('x'.repeat(100_000))).line.length < 3_000);
});

test('settings: what is wrong is named, exit 2', () => {
  assert.deepEqual(parseHostPort('127.0.0.1:0'), { host: '127.0.0.1', port: 0 });
  assert.deepEqual(parseHostPort('[::1]:8080'), { host: '::1', port: 8080 });
  assert.deepEqual(parseLabels(['a=b', 'url=x=y', 'empty=']), { a: 'b', url: 'x=y', empty: '' });
  assert.deepEqual(parseServer(undefined, []), {});
  assert.deepEqual(parseServer('edge 7', ['a', 'b(c)']), { name: 'edge 7', extensions: ['a', 'b(c)'] });
  process.env['LEPTON_SERVER_NAME'] = 'from outside';
  process.env['LEPTON_SERVER_EXTENSIONS'] = 'a, b,';
  assert.deepEqual(parseServer(undefined, []), { name: 'from outside', extensions: ['a', 'b'] });
  assert.deepEqual(parseServer('flag', ['c']), { name: 'flag', extensions: ['c'] });
  delete process.env['LEPTON_SERVER_NAME'];
  delete process.env['LEPTON_SERVER_EXTENSIONS'];
  const bad = [
    () => parseServer('a\nb', []),
    () => parseServer(undefined, ['x'.repeat(300)]),
    () => parseHostPort('nope'),
    () => parseHostPort('h:65536'),
    () => parseHostPort(':1'),
    () => parseHostPort('::1:80'),
    () => parseLabels(['=x']),
    () => parseLabels(['x']),
    () => parseLabels([`a b=c`]),
    () => parseLogLevel('loud'),
  ];
  for (const attempt of bad) {
    assert.throws(attempt, (error) => formatError(error).exit === 2 && error instanceof FleetError);
  }
});
