// Why: a device that is moved has a region at every moment, whatever is cut off and whenever the power goes; an order that was
// taken is never forgotten.
// Trusts: the pure core alone. Must never: know how the shell does it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  afterMove,
  type MoveEffect,
  type MoveEvent,
  moveTable,
  stepMove,
} from '../../agent/move/move-machine.ts';
import { type Held, higherOf, nothingHeld } from '../../agent/trust/held.ts';
import { begun } from '../../agent/trust/identity.ts';
import { type Joined, type Moves, movesSchema, neverMoved } from '../../agent/trust/moves.ts';
import { dayMs, nowMs, Repository } from '../trust/catalogue-fixture.ts';
import { deviceId, regionRoot } from '../trust/region-fixture.ts';
import { claimTo, orderOf } from './order-fixture.ts';

const joined: Joined = { certificate: 'new', regionRoot: 'AAAA', labels: {}, telemetryEpoch: 0 };
const reason = { code: 'broker-unreachable', detail: 'x' };

interface Device {
  region: string;
  moves: Moves;
}

/** What a device does from its memory on: `tries` says what each attempt comes to. Null: the power went. */
class Run {
  device: Device = { region: 'eu', moves: neverMoved };
  writes = 0;
  readonly cutAt: number;
  private cut = false;

  constructor(cutAt: number) {
    this.cutAt = cutAt;
  }

  /** One durable write; after the one at which the power goes nothing more happens in this start. */
  private write(device: Device): void {
    if (this.cut) return;
    // As it is read back.
    this.device = {
      region: device.region,
      moves: movesSchema.parse(JSON.parse(JSON.stringify(device.moves))),
    };
    this.writes += 1;
    if (this.writes === this.cutAt) this.cut = true;
  }

  /** From the start on until the device has come to rest. */
  start(events: MoveEvent[]): void {
    this.cut = false;
    const { under } = this.device.moves;
    let effect: MoveEffect = under === null ? 'none' : moveTable[under.phase].effect;
    const take = (event: MoveEvent): void => {
      const step = stepMove(this.device.moves, event);
      if (JSON.stringify(step.next) !== JSON.stringify(this.device.moves))
        this.write({ ...this.device, moves: step.next });
      if (!this.cut) effect = step.effect;
    };
    for (const event of events) {
      if (this.cut) return;
      if (event.type === 'rehearsed') {
        const left = { region: this.device.region, regionRoot: 'AAAA', epoch: 7, nowMs };
        if (this.device.moves.under?.phase !== 'rehearsing') continue;
        this.write({ region: 'us', moves: afterMove(this.device.moves, left, event.assignment) });
        effect = 'none';
      } else take(event);
    }
    // The world works from here on.
    for (let steps = 0; steps < 10 && !this.cut; steps += 1) {
      if (effect === 'look') take({ type: 'quiet' });
      else if (effect === 'enrol') take({ type: 'joined', joined });
      else if (effect === 'rehearse') {
        this.start([{ type: 'rehearsed', assignment: 'first' }]);
        return;
      }
    }
  }
}

const ordered: MoveEvent = { type: 'ordered', order: orderOf(), envelope: '{}' };
const stories: MoveEvent[][] = [
  [ordered],
  [ordered, { type: 'busy', reason }, { type: 'quiet' }, { type: 'failed', reason }],
  [ordered, { type: 'quiet' }, { type: 'joined', joined }, { type: 'failed', reason }],
  // An update began at the last moment.
  [ordered, { type: 'quiet' }, { type: 'joined', joined }, { type: 'busy', reason }],
  [ordered, { type: 'quiet' }, { type: 'joined', joined }, { type: 'rehearsed', assignment: 'first' }],
];

test('power cuts at every write: it ends in the new region, once, with the old one’s outbox kept', () => {
  for (const story of stories) {
    for (let cutAt = 0; cutAt < 12; cutAt += 1) {
      const run = new Run(cutAt);
      run.start(story);
      // A retained order comes again at each start; the one that is known is not taken again.
      for (let starts = 0; starts < 3; starts += 1)
        run.start(run.device.moves.lastMoveId === null ? [ordered] : []);
      const { region, moves } = run.device;
      const where = `story ${stories.indexOf(story)}, cut at ${cutAt}`;
      assert.equal(region, 'us', where);
      assert.deepEqual(
        [moves.under, moves.movedFrom, moves.outbox, moves.arrival],
        [null, 'eu', 1, 'first'],
        where,
      );
      assert.deepEqual(
        moves.chains.map(({ outbox, region: of }) => [outbox, of]),
        [[0, 'eu']],
        where,
      );
      assert.deepEqual(moves.epochs, { eu: 7 });
      assert.equal(moves.lastMoveId, '1'.repeat(24));
    }
  }
});

test('an order that ends leaves the device where it is, and is remembered', () => {
  for (const before of [
    [],
    [{ type: 'quiet' }],
    [{ type: 'quiet' }, { type: 'joined', joined }],
  ] as MoveEvent[][]) {
    let moves = neverMoved;
    for (const event of [ordered, ...before]) moves = stepMove(moves, event).next;
    const end = { code: 'move-expired', detail: 'x' };
    const step = stepMove(moves, { type: 'over', reason: end });
    assert.deepEqual([step.ended, step.effect, step.next.under], [end, 'none', null]);
    assert.deepEqual(step.next.lastEnded, end);
    assert.equal(step.next.lastIssuedAtMs, nowMs);
    assert.deepEqual([step.next.outbox, step.next.chains], [0, []]);
  }
});

test('a newer order replaces the one under way, at any phase; what its region gave is forgotten', () => {
  const second = orderOf({ moveId: '2'.repeat(24), issuedAtMs: nowMs + 1, to: claimTo('asia') });
  for (const before of [
    [],
    [{ type: 'quiet' }],
    [{ type: 'quiet' }, { type: 'joined', joined }],
  ] as MoveEvent[][]) {
    let moves = neverMoved;
    for (const event of [ordered, ...before]) moves = stepMove(moves, event).next;
    const step = stepMove(moves, { type: 'ordered', order: second, envelope: '{}' });
    assert.equal(step.effect, 'look');
    assert.deepEqual(
      [step.next.under?.to, step.next.under?.phase, step.next.under?.joined],
      ['asia', 'waiting', null],
    );
  }
});

test('an event that a phase does not know changes nothing; every phase has an effect to repeat', () => {
  const moves = stepMove(neverMoved, ordered).next;
  for (const event of [
    { type: 'joined', joined },
    { type: 'rehearsed', assignment: 'x' },
  ] as MoveEvent[])
    assert.deepEqual(stepMove(moves, event), { next: moves, effect: 'none', ended: null });
  const left = { region: 'eu', regionRoot: 'AAAA', epoch: 1, nowMs };
  assert.throws(() => afterMove(moves, left, 'x'), 'not before the new region let it in');
  for (const [phase, row] of Object.entries(moveTable)) {
    assert.notEqual(row.effect, 'none', phase);
    assert.equal(row.on.booted, 'stay', phase);
    assert.equal(row.on.over, 'end', phase);
  }
});

test('there and back: no outbox number twice while its file may be there, the older epoch is known', () => {
  let moves = neverMoved;
  let at = 'eu';
  const numbers = [moves.outbox];
  for (const [index, to] of ['us', 'eu', 'us'].entries()) {
    const order = orderOf({
      moveId: `${index + 1}`.repeat(24),
      issuedAtMs: nowMs + index,
      from: at,
      to: claimTo(to),
    });
    for (const event of [
      { type: 'ordered', order, envelope: '{}' },
      { type: 'quiet' },
      { type: 'joined', joined },
    ] as MoveEvent[])
      moves = stepMove(moves, event).next;
    moves = afterMove(moves, { region: at, regionRoot: 'AAAA', epoch: 5 + index, nowMs }, 'x');
    at = to;
    numbers.push(moves.outbox);
  }
  assert.equal(new Set(numbers).size, numbers.length);
  assert.deepEqual(moves.epochs, { us: 6, eu: 7 });
  assert.equal(moves.chains.length, 3);
});

test('a power cut between the two copies: the newer one says of which region the device is', () => {
  const { firstRoot } = new Repository();
  const identity = begun({
    ...{ seed: new Uint8Array(32), deviceId, certificate: 'old', region: 'eu', brokerUrl: 'old' },
    ...{ fleetCa: 'old', labels: {}, telemetryEpoch: 3, claimId: 'first' },
  });
  const assignment = { epoch: 9, payloadSha256: 'a'.repeat(64), envelope: '{}' };
  const kept: Held = {
    ...nothingHeld,
    ...{ identity, root: firstRoot, boot: 4, outbox: { deviceId, epoch: 3 }, assignment },
    // A higher version than the new region's: they do not compare.
    regionRoot: regionRoot({ version: 5 }),
    moves: { ...neverMoved, lastMoveId: '1'.repeat(24), lastIssuedAtMs: nowMs },
  };
  const chain = { outbox: 0, region: 'eu', regionRoot: 'AAAA', leftAtMs: nowMs };
  const written: Held = {
    ...kept,
    identity: { ...identity, claimId: 'second', region: 'us', certificate: 'new' },
    regionRoot: regionRoot({ version: 1, region: 'us' }),
    ...{ assignment: null, outbox: null },
    moves: { ...kept.moves, outbox: 1, chains: [chain], movedFrom: 'eu' },
  };
  const both = higherOf(kept, written);
  assert.equal(both.identity?.region, 'us');
  assert.deepEqual(both.regionRoot, written.regionRoot);
  assert.deepEqual([both.assignment, both.outbox], [null, null]);
  assert.deepEqual(both.moves, written.moves);
  // The copy is of an earlier start: the store is the newer one.
  const older = higherOf({ ...written, boot: 5 }, kept);
  assert.equal(older.identity?.region, 'us');
  assert.deepEqual(older.moves, written.moves);
  // An order that only one of them knows is known.
  const ordered = { ...kept.moves, lastIssuedAtMs: nowMs + dayMs, lastMoveId: '3'.repeat(24) };
  assert.deepEqual(higherOf({ ...kept, moves: ordered }, kept).moves, ordered);
});
