// Why: the shell of a move on a device: which orders it takes, when it waits, what ends it, and that the switch is asked for
// only after the new region has let the device in.
// Trusts: a bus that says what the test wants; the machine and the checks are the real ones. Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startMover } from '../../agent/move/mover.ts';
import type { Authority } from '../../agent/trust/authority.ts';
import { begun, type Identity } from '../../agent/trust/identity.ts';
import type { Keeper } from '../../agent/trust/keeper.ts';
import { type Moves, type MoveUnderWay, neverMoved } from '../../agent/trust/moves.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { issueDeviceCertificate, makeCertificateAuthority } from '../../shared/host/certificates.ts';
import type { AgentBus, ConnectBusOptions } from '../../shared/host/mqtt.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { BusMessage } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, refuse } from '../../shared/kernel/result.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import { encodeMove, signMove } from '../../shared/trust/device-move.ts';
import type { MoveOrder } from '../../shared/wire/device-move.ts';
import { encodeFrame } from '../../shared/wire/frames.ts';
import {
  encodeMessage,
  fetchRequestSchema,
  type MachineStateName,
  parseMessage,
  type ReportedModel,
} from '../../shared/wire/messages.ts';
import { countingEntropy, handClock, settle, silent } from '../agent/hand-clock.ts';
import { dayMs, nowMs, Repository, role, signerNamed } from '../trust/catalogue-fixture.ts';
import { device, deviceId, director, regionRoot, trusted } from '../trust/region-fixture.ts';
import { claimTo, orderOf } from './order-fixture.ts';

const { firstRoot, rootSigners: holders } = new Repository();
const seed = new Uint8Array(32);
seed.set(new TextEncoder().encode('device'));
const caSeed = new Uint8Array(32).fill(3);
const dates = { notBeforeMs: nowMs - dayMs, notAfterMs: nowMs + 99 * dayMs };
const fleetCa = await makeCertificateAuthority({ seed: caSeed, name: 'us', ...dates });
const ca = { certificatePem: fleetCa, seed: caSeed };
const certificate = await issueDeviceCertificate({ ca, deviceId, publicKey: device.publicKey, ...dates });
const usRoot = regionRoot({ region: 'us' });

const model = (state: MachineStateName): ReportedModel => ({
  ...{ name: 'm', state, active: null, activeSha256: null, candidate: null, lastGood: null },
  ...{ target: null, rolloutId: null, reason: null, progress: null, probe: null },
});

/** The order that the new region made a claim for. */
function order(changes: Partial<MoveOrder> = {}): MoveOrder {
  const claim = { ...claimTo('us'), fleetCa, regionRootSha256: sha256Hex(usRoot) };
  return orderOf({ to: { ...claim, catalogueRootSha256: sha256Hex(firstRoot) }, ...changes });
}

class Scene {
  readonly clock = handClock();
  moves: Moves = neverMoved;
  models: ReportedModel[] = [];
  readonly remembered: Refusal[] = [];
  refresh: Refusal | null = null;
  refreshes = 0;
  /** `down`: nobody answers; `enrols`: and lets nobody in after that; `serves`. */
  there: 'down' | 'enrols' | 'serves' = 'serves';
  shows = usRoot;
  /** Who signs the new region's assignments, and the roots after the one that the order names. */
  signs = director;
  laterRoots: readonly Uint8Array[] = [];
  answer: object | null = null;
  epoch = 1;
  tries = 0;
  mayLeave = true;
  heldBack = 0;
  readonly switched: { identity: Identity; regionRoot: Uint8Array; moves: Moves }[] = [];
  private readonly startMs = this.clock.wall();
  readonly identity = begun({
    ...{ seed, deviceId, certificate: 'old', region: 'eu', brokerUrl: 'mqtts://old', fleetCa: 'old' },
    ...{ labels: {}, telemetryEpoch: 0, claimId: 'first' },
  });

  under(): MoveUnderWay | null {
    return this.moves.under;
  }

  nowMs(): number {
    return nowMs + this.clock.wall() - this.startMs;
  }

  start() {
    const authority: Pick<Authority, 'time' | 'catalogueRoot' | 'regionRoot' | 'epoch' | 'refresh'> = {
      time: { nowMs: () => this.nowMs() } as Authority['time'],
      catalogueRoot: () => firstRoot,
      regionRoot: () => trusted(),
      epoch: () => 7,
      refresh: async () => {
        this.refreshes += 1;
        return this.refresh === null
          ? ok({ changed: false, refused: [] })
          : refuse(this.refresh.code, this.refresh.detail);
      },
    };
    const keeper: Pick<Keeper, 'held' | 'moves'> = {
      held: () => ({ moves: this.moves }) as ReturnType<Keeper['held']>,
      moves: async (change) => {
        this.moves = change(this.moves);
      },
    };
    return startMover({
      ...{ keeper: keeper as Keeper, authority: () => authority as Authority },
      ...{ identity: () => this.identity, models: () => this.models, labels: () => ({}) },
      ...{ timezone: 'UTC', agent: () => ({ version: '0', runtime: '0', arch: 'x64' }) },
      remember: (refusal) => this.remembered.push(refusal),
      changed: () => undefined,
      switchTo: async (next) => {
        if (!this.mayLeave) {
          this.heldBack += 1;
          return false;
        }
        this.moves = next.moves(this.moves);
        this.switched.push({ ...next, moves: this.moves });
        return true;
      },
      connect: (options) => this.connect(options),
      ...{ clock: this.clock, entropy: countingEntropy(), log: silent },
    });
  }

  private assignment(): Uint8Array {
    const envelope = signAssignment(
      {
        ...{ schemaVersion: 1, deviceId, region: 'us', epoch: this.epoch, issuedAtMs: nowMs },
        ...{ expiresAtMs: nowMs + dayMs, labels: {}, releases: [], authoritiesSha256: null },
        telemetry: { epoch: 0, keyId: 'k', publicKey: 'a'.repeat(64) },
      },
      this.signs,
    );
    return encodeMessage({ schemaVersion: 1, messageId: 'm', sentAtMs: nowMs, envelope });
  }

  private reply(): Uint8Array {
    const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
    const accepted = {
      ...{ status: 'accepted', deviceId, certificate, labels: {}, telemetryEpoch: 0 },
      ...{ catalogueRoot: base64(firstRoot), regionRoot: base64(this.shows) },
    };
    const result = this.answer ?? accepted;
    return encodeMessage({ schemaVersion: 1, messageId: 'm', sentAtMs: nowMs, result });
  }

  /** A frame for the file that a fetch names. */
  private file(request: Uint8Array): Uint8Array {
    const { requestId, target, offset } = unwrap(parseMessage(fetchRequestSchema, request));
    const [, version] = /^region\/(\d+)\.root\.json$/.exec('name' in target ? target.name : '') ?? [];
    const bytes = this.laterRoots[Number(version) - 2];
    const nothing = { totalBytes: 0, payload: new Uint8Array(0) };
    return encodeFrame({
      ...{ requestId, offset, status: bytes === undefined ? 'not-found' : 'data' },
      ...(bytes === undefined ? nothing : { totalBytes: bytes.length, payload: bytes.subarray(offset) }),
    });
  }

  private connect({ clientId, onStatus }: ConnectBusOptions): AgentBus {
    this.tries += 1;
    const asDevice = clientId === deviceId;
    const isUp = this.there === 'serves' || (this.there === 'enrols' && !asDevice);
    const code = this.there === 'down' ? 'broker-unreachable' : 'broker-not-authorized';
    setImmediate(() => onStatus(isUp ? 'connected' : { refused: code, detail: 'x' }));
    const handlers = new Map<string, (message: BusMessage) => void>();
    const say = (payload: Uint8Array, kind: string): void => {
      setImmediate(() => handlers.get(kind)?.({ topic: '', payload, retained: true }));
    };
    const kindOf = (topic: string): string => topic.split('/').at(-1) ?? '';
    return {
      connected: () => isUp,
      use: () => undefined,
      restart: () => undefined,
      close: async () => undefined,
      publish: async (topic, body) =>
        kindOf(topic) === 'fetch' ? say(this.file(body), 'bytes') : say(this.reply(), 'reply'),
      subscribe: async (filter, on) => {
        handlers.set(kindOf(filter), on);
        if (kindOf(filter) === 'desired' && asDevice && isUp) say(this.assignment(), 'desired');
        return { cancel: async () => undefined };
      },
    };
  }

  /** Lets time pass in steps until `look` says yes. */
  async until(look: () => boolean, what: string): Promise<void> {
    for (let step = 0; !look(); step += 1) {
      assert.ok(step < 400, `not in time: ${what}`);
      for (let turn = 0; turn < 10; turn += 1) await settle();
      if (!look()) await this.clock.advance(500);
    }
  }

  async pass(): Promise<void> {
    for (let step = 0; step < 30; step += 1) {
      await settle();
      await this.clock.advance(500);
    }
  }
}

const signed = (wanted: MoveOrder, signers: readonly Signer[] = holders.slice(0, 2)) =>
  signMove(encodeMove(wanted), signers);

test('an order is taken, the new region tried, and the switch asked for with what it gave', async () => {
  const scene = new Scene();
  const mover = scene.start();
  mover.ordered(signed(order()));
  await scene.until(() => scene.switched.length === 1, 'the switch');
  const [next] = scene.switched;
  assert.deepEqual(
    [next?.identity.region, next?.identity.certificate, next?.identity.settled, next?.moves.movedFrom],
    ['us', certificate, true, 'eu'],
  );
  assert.equal(next?.moves.epochs['eu'], 7);
  assert.deepEqual(scene.remembered, []);
  assert.ok(scene.refreshes > 0, 'the root was refreshed before it was believed');
  // The same order again, as it stays on the topic: no news.
  const before = scene.tries;
  mover.ordered(signed(order()));
  await scene.pass();
  assert.deepEqual([scene.tries, scene.remembered], [before, []]);
  await mover.stop();
});

test('what is not an order for this device is told, and nobody is asked', async () => {
  const scene = new Scene();
  const mover = scene.start();
  const elsewhere = 'd'.repeat(32);
  const cases: [string, ReturnType<typeof signed>][] = [
    ['move-signature-invalid', signed(order(), holders.slice(0, 1))],
    ['move-signature-invalid', signed(order(), [director, signerNamed('ack')])],
    ['move-other-device', signed(order({ deviceIds: [elsewhere], to: claimTo('us', [elsewhere]) }))],
    ['move-other-region', signed(order({ from: 'asia' }))],
    ['move-expired', signed(order({ issuedAtMs: nowMs - 9, expiresAtMs: nowMs - 1 }))],
  ];
  for (const [at, [code, envelope]] of cases.entries()) {
    mover.ordered(envelope);
    await scene.until(() => scene.remembered.length === at + 1, code);
    assert.equal(scene.remembered.at(-1)?.code, code);
  }
  scene.moves = { ...neverMoved, lastIssuedAtMs: nowMs, lastMoveId: '9'.repeat(24) };
  mover.ordered(signed(order()));
  await scene.until(() => scene.remembered.length === cases.length + 1, 'replayed');
  assert.equal(scene.remembered.at(-1)?.code, 'move-replayed');
  assert.equal(scene.tries, 0);
  await mover.stop();
});

test('it waits for an update, for a catalogue that can be refreshed, and for the new region', async () => {
  const scene = new Scene();
  scene.refresh = { code: 'bus-offline', detail: 'x' };
  scene.models = [model('soaking')];
  scene.there = 'down';
  const mover = scene.start();
  mover.ordered(signed(order()));
  await scene.pass();
  assert.equal(scene.under(), null, 'not believed before the root was refreshed');
  scene.refresh = null;
  await scene.until(() => scene.under()?.reason?.code === 'move-waits', 'waits for the update');
  assert.equal(scene.tries, 0);
  scene.models = [model('committed')];
  mover.look();
  await scene.until(() => scene.under()?.reason?.code === 'broker-unreachable', 'tries');
  assert.equal(scene.under()?.phase, 'enrolling');
  // It gets a certificate, but is not let in as a device: it stays where it is.
  scene.there = 'enrols';
  await scene.until(() => scene.under()?.reason?.code === 'broker-not-authorized', 'rehearses');
  assert.deepEqual([scene.under()?.phase, scene.switched.length], ['rehearsing', 0]);
  // An update began at the last moment.
  scene.there = 'serves';
  scene.mayLeave = false;
  await scene.until(() => scene.under()?.phase === 'enrolling' || scene.tries > 30, 'goes back to waiting');
  scene.mayLeave = true;
  await scene.until(() => scene.switched.length === 1, 'the switch');
  await mover.stop();
});

test('an order whose time is over is given up; one whose region shows another root as well', async () => {
  const scene = new Scene();
  scene.there = 'down';
  const mover = scene.start();
  mover.ordered(signed(order({ expiresAtMs: nowMs + 60_000 })));
  await scene.until(() => scene.moves.lastEnded !== null, 'its end');
  assert.deepEqual([scene.moves.lastEnded?.code, scene.under()], ['move-expired', null]);

  scene.there = 'serves';
  scene.shows = regionRoot({ region: 'us', version: 2 });
  mover.ordered(signed(order({ moveId: '2'.repeat(24), issuedAtMs: nowMs + 1 })));
  await scene.until(() => scene.moves.lastEnded?.code === 'enrolment-root-mismatch', 'the other root');
  assert.equal(scene.remembered.at(-1)?.code, 'enrolment-root-mismatch');
  assert.equal(scene.switched.length, 0);
  // The region takes it back.
  scene.answer = { status: 'refused', code: 'claim-unknown', detail: 'x' };
  mover.ordered(signed(order({ moveId: '3'.repeat(24), issuedAtMs: nowMs + 2 })));
  await scene.until(() => scene.moves.lastEnded?.code === 'claim-unknown', 'the refusal');
  await mover.stop();
});

test('back in a region where it was: an assignment from then is not one of now', async () => {
  const scene = new Scene();
  scene.moves = { ...neverMoved, epochs: { us: 5 } };
  scene.epoch = 5;
  const mover = scene.start();
  mover.ordered(signed(order()));
  await scene.until(() => scene.remembered.some(({ code }) => code === 'assignment-replayed'), 'refused');
  assert.equal(scene.switched.length, 0);
  scene.epoch = 6;
  await scene.until(() => scene.switched.length === 1, 'the newer one');
  await mover.stop();
});

test('a start in the middle of it goes on; four regions that still wait for telemetry hold it up', async () => {
  const scene = new Scene();
  scene.there = 'enrols';
  const first = scene.start();
  first.ordered(signed(order()));
  await scene.until(() => scene.under()?.phase === 'rehearsing', 'the certificate');
  await first.stop();
  scene.there = 'serves';
  const second = scene.start();
  await scene.until(() => scene.switched.length === 1, 'the switch after a restart');
  await second.stop();

  // What a dying disk left of an order ends it; it is not tried for ever.
  const torn = new Scene();
  torn.there = 'down';
  const before = torn.start();
  before.ordered(signed(order()));
  await torn.until(() => torn.under() !== null, 'the order');
  await before.stop();
  const under = torn.under() ?? assert.fail();
  torn.moves = { ...torn.moves, under: { ...under, envelope: under.envelope.slice(0, 40) } };
  const after = torn.start();
  await torn.until(() => torn.under() === null, 'the end of it');
  assert.equal(torn.moves.lastEnded?.code, 'move-malformed');
  await after.stop();

  const full = new Scene();
  const chains = ['a', 'b', 'c', 'd'].map((region, outbox) => ({
    outbox,
    region,
    regionRoot: 'AAAA',
    leftAtMs: 1,
  }));
  full.moves = { ...neverMoved, outbox: 4, chains };
  const mover = full.start();
  mover.ordered(signed(order()));
  await full.until(() => full.under()?.reason?.code === 'move-waits', 'held up');
  full.moves = { ...full.moves, chains: chains.slice(1) };
  await full.until(() => full.switched.length === 1, 'the switch');
  assert.equal(full.moves.outbox, 5);
  await mover.stop();
});

test('the new region changed its keys after the order was written: the device follows its roots, and no others', async () => {
  const scene = new Scene();
  scene.signs = signerNamed('later director');
  const later = { region: 'us', version: 2, director: role(1, scene.signs) };
  const strangers = ['x', 'y', 'z'].map(signerNamed);
  scene.laterRoots = [regionRoot({ ...later, root: role(2, ...strangers), signers: strangers })];
  const mover = scene.start();
  mover.ordered(signed(order()));
  await scene.until(
    () => scene.under()?.reason?.code === 'metadata-signature-invalid',
    'a root of strangers',
  );
  scene.laterRoots = [];
  await scene.until(() => scene.under()?.reason?.code === 'assignment-signature-invalid', 'no newer root');
  assert.equal(scene.switched.length, 0);
  const second = regionRoot(later);
  const third = regionRoot({ ...later, version: 3 });
  scene.laterRoots = [second, third];
  await scene.until(() => scene.switched.length === 1, 'the switch');
  assert.deepEqual(scene.switched[0]?.regionRoot, third, 'it goes on from the newest');
  await mover.stop();
});
