// Why: the devices of several regions: each enrols in one, may move to another, and goes on without any.
// Trusts: device-node.ts for the machine, a claim that people carry to it. Must never: help a device over a fault.

import { type Moves, neverMoved, readMoves } from '../../agent/trust/moves.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import { drawInt } from '../chance.ts';
import { createDeviceNode, type DeviceNode } from '../fleet-world/device-node.ts';
import type { Reached } from '../fleet-world/node-log.ts';
import type { Publisher } from '../fleet-world/publisher.ts';
import type { RegistryParts } from '../fleet-world/registry-node.ts';
import { drawTerms } from '../fleet-world/terms.ts';
import type { MachineClocks } from '../machine/clocks.ts';
import { createSimPlace, type SimPlace } from '../machine/place.ts';
import type { Network } from '../network/network.ts';
import { createDeviceOracle, type DeviceOracle, stateFile } from '../oracle/device-oracle.ts';
import type { RegionTruths } from '../oracle/region-truths.ts';
import type { Incarnation, World } from '../world.ts';

/** Stands in every record, so that one is known wherever it appears. */
export const recordMark = 'raw-record';

export interface RegionDevice {
  device: DeviceNode;
  oracle: DeviceOracle;
  /** Of which it is at the moment, as its own store says; null: of none yet. */
  region(): string | null;
  moves(): Moves;
  /** Somebody carries a claim of this region to it; `again`: as a new device. */
  giveClaim(region: string, again?: boolean): void;
}

export interface RegionDevicesParts {
  world: World;
  network: Network;
  publisher: Publisher;
  reached: Reached;
  truths: RegionTruths;
  nodes: Map<string, { afterCut(): void }>;
  clocksOf(node: string): MachineClocks;
  faults(): number;
  /** Nothing more is recorded. */
  isHealed(): boolean;
  up(region: string): RegistryParts | null;
}

const claimTries = 2_000;
const claimAgainMs = 20_000;

export const regionOf = (place: SimPlace): string | null =>
  place.look(stateFile, (db) => db.get<{ region: string }>('SELECT region FROM identity')?.region ?? null);

export function addRegionDevice(parts: RegionDevicesParts, home: string, number: number): RegionDevice {
  const { world, network, publisher, reached, truths } = parts;
  const { seed } = world;
  const node = `${home}-${number}`;
  const terms = drawTerms(seed, 1).device;
  let present: Incarnation | null = null;
  let region: string | null = null;
  let moves = neverMoved;
  let faultsAtBoot = 0;
  let records = 0;
  const place = createSimPlace(world, {
    node,
    onCommit(file) {
      if (file === stateFile) place.look(file, readOwn);
      oracle.committed(file);
      checkOrder();
    },
  });

  /** Of which device that was, and which order it took last: an older one is never followed again. */
  let taken: { deviceId: string | null; issuedAtMs: number } = { deviceId: null, issuedAtMs: 0 };
  function checkOrder(): void {
    const deviceId = oracle.deviceId();
    const issuedAtMs = moves.lastIssuedAtMs;
    if (deviceId === taken.deviceId && issuedAtMs < taken.issuedAtMs)
      world.violate(`${node}: it follows a move of ${issuedAtMs} after one of ${taken.issuedAtMs}`);
    taken = { deviceId, issuedAtMs };
  }

  function readOwn(db: Parameters<Parameters<SimPlace['look']>[1]>[0]): void {
    region = db.get<{ region: string }>('SELECT region FROM identity')?.region ?? region;
    moves = readMoves(db);
  }

  const oracle: DeviceOracle = createDeviceOracle({
    ...{ world, node, place, publisher, reached },
    truth: truths.forDevice(() => region),
    timezone: 'UTC',
    journalWritesMax: terms.update.journalWritesMax,
    outboxBytesMax: limits.outboxBytesMax,
    faults: parts.faults,
    alive: (of) => of.alive,
    present: () => present,
  });

  const device = createDeviceNode({
    ...{ world, network, node, place, reached },
    clocks: parts.clocksOf(node),
    labels: {},
    timezone: 'UTC',
    // What is dropped where an outbox is full is judged in the world of one region.
    terms: { ...terms, outbox: { ...terms.outbox, outboxBytesMax: limits.outboxBytesMax } },
    patches: null,
    releaseOf: publisher.ofManifest,
    witness: oracle.witness,
    application: {
      everyMs: drawInt(60, 400, seed, 'record', node) * 1_000,
      goesOn: () => !parts.isHealed(),
      record: () => {
        records += 1;
        return new TextEncoder().encode(`{"id":"${node}-${records}","of":"${recordMark}"}\n`);
      },
      answered: (body) => {
        const { id } = JSON.parse(new TextDecoder().decode(body)) as { id: string };
        if (region !== null) truths.answeredIn(node, region, id);
      },
    },
    onBoot: (of) => {
      present = of;
      faultsAtBoot = parts.faults();
    },
    onServing: (life) => oracle.serving(life, faultsAtBoot),
    onNetwork: (served) => oracle.network(served),
    onFault: ({ code }) => {
      if (code.startsWith('claim-') || code === 'enrolment-required') self.giveClaim(region ?? home);
    },
  });
  parts.nodes.set(node, {
    afterCut: () => {
      device.afterCut();
      oracle.afterCut();
    },
  });

  function carry(from: string, again: boolean, tries: number): void {
    if (tries <= 0) return;
    const next = (): void => world.later(claimAgainMs, () => carry(from, again, tries - 1));
    const up = parts.up(from);
    if (up === null) {
      next();
      return;
    }
    let done = false;
    up.fleet.claims.create({ labels: {}, uses: 1, ttlMs: 86_400_000, createdBy: 'operator' }).then(
      (claim: ClaimFile) => {
        if (done) return;
        done = true;
        device.give(claim, again);
        if (again) device.fail('exit', 1_000);
        else device.boot();
      },
      (thrown: unknown) => world.note(`no claim: ${String(thrown)}`),
    );
    // A registry that dies over it never answers.
    world.later(claimAgainMs, () => {
      if (done) return;
      done = true;
      carry(from, again, tries - 1);
    });
  }

  const self: RegionDevice = {
    device,
    oracle,
    region: () => region,
    moves: () => moves,
    giveClaim: (from, again = false) => carry(from, again, claimTries),
  };
  return self;
}
