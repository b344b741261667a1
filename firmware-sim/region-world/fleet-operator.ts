// Why: people of several regions who roll out: across regions and in their own, who say stop and go on, move devices, and put
// right what waits for them. Trusts: the registries' own functions, as the API calls them.
// Must never: help a registry over a fault, or end what would have ended by itself.

import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import type { MoveOrder } from '../../shared/wire/device-move.ts';
import type { Envelope } from '../../shared/wire/messages.ts';
import type { RegionRolloutStatus } from '../../shared/wire/region-rollouts.ts';
import { drawBytes } from '../chance.ts';
import type { RegistryParts } from '../fleet-world/registry-node.ts';
import { registryFile } from '../oracle/registry-oracle.ts';
import type { RegionDevice } from './devices.ts';
import type { People } from './people.ts';
import type { RegionsWorld, SimRegion } from './regions.ts';
import type { AcrossChoice, FleetStep } from './scenario.ts';

export interface FleetOperator {
  take(step: FleetStep): void;
  /** What a restore or a lost region left is put right. */
  tidyUp(): void;
  /** Rollouts that wait for somebody's word get one. */
  lookAgain(): void;
  /** Which rollout across regions is open still, and why; null: none. */
  open(): string | null;
}

interface Begun {
  region: SimRegion;
  id: string;
  /** How often somebody let it go on. */
  resumed: number;
  isOpen: boolean;
  /** What was last heard of it. */
  words: string;
}

const ownTries = 40;
const resumesMax = 2;

export function createFleetOperator(
  all: RegionsWorld,
  { insist }: People,
  home: () => SimRegion | undefined,
): FleetOperator {
  const { world, regions, doors, publisher, holders, reached } = all;
  const begun: Begun[] = [];
  let named = 0;
  let moved = 0;

  const at = (index: number): SimRegion | undefined => regions[index % Math.max(1, regions.length)];
  const lostNames = (): string[] => regions.filter(({ lost }) => lost).map(({ name }) => name);

  /** What the API writes for every act of a person. */
  const noted = (parts: RegistryParts, action: string, subject: string | null): Promise<void> =>
    parts.core.audit.append({
      ...{ actor: 'operator', via: 'api', action, subject, reason: null, outcome: 'done', code: null },
      ...{ rule: null, address: null, detail: {} },
    });

  function fileOf(release: string, choice: AcrossChoice | null): string {
    named += 1;
    const skip = choice?.skipAfterMs ?? null;
    return JSON.stringify({
      ...{ apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name: `rollout-${named}` } },
      spec: {
        release,
        ...(choice === null ? {} : { regions: stagesOf(choice), onAbort: choice.onAbort }),
        ...(skip === null ? {} : { onUnreachable: { skipAfter: `${skip}ms` } }),
        waves: [
          { count: 1, soak: `${choice?.waveSoakMs ?? 10_000}ms` },
          { percent: 100, soak: '10s' },
        ],
        deadlines: {
          ...{ fetching: '10m', probing: '5m', shadowing: '5m', soaking: '20m' },
          unreachable: { after: '10m', counts: 'ignore' },
        },
        onGateFailure: choice?.onGateFailure ?? 'rollback',
      },
    });
  }

  const stagesOf = ({ stages, soakMs }: AcrossChoice): object[] =>
    stages.flatMap((numbers) => {
      const names = numbers.flatMap((number) => regions[number]?.name ?? []);
      return names.length === 0 ? [] : [{ names, soak: `${soakMs}ms` }];
    });

  /** A release of this kind is signed and in the catalogue, then it is rolled out. */
  function pushFirst(choice: AcrossChoice, then: (release: string) => void): void {
    insist('push for a rollout', home, async (parts) => {
      const pushed = await publisher.push(parts, { model: 'alpha', kind: choice.release });
      if (pushed.ok) then(pushed.value.releaseId);
      return pushed.ok || !['not-home', 'metadata-version-invalid', 'conflict'].includes(pushed.refusal.code);
    });
  }

  function across(by: number | null, choice: AcrossChoice): void {
    pushFirst(choice, (release) => {
      const who = by === null ? home : () => at(by);
      insist(
        `roll out ${release} across regions`,
        who,
        async (parts) => {
          const region = who();
          if (region === undefined || parts.regionRollouts === null) return false;
          const text = fileOf(release, choice);
          const made = await parts.regionRollouts.begin(text, unwrap(parseRolloutFile(text)), 'operator');
          world.note(`across: ${made.ok ? made.value.id : `${made.refusal.code} ${made.refusal.detail}`}`);
          if (!made.ok) return false;
          begun.push({ region, id: made.value.id, resumed: 0, isOpen: true, words: 'begun' });
          reached.count('order', region === home() ? 'across' : 'across, not at home');
          await noted(parts, 'rollout.start', made.value.id);
          return true;
        },
        ownTries,
      );
    });
  }

  function own(region: SimRegion | undefined): void {
    if (region === undefined) return;
    insist(
      `roll out in ${region.name} alone`,
      () => region,
      async (parts) => {
        const known = publisher.signed().filter(({ model, kind }) => model === 'alpha' && kind === 'good');
        for (const release of known.reverse()) {
          if ((await parts.core.releases.find(release.releaseId)) === null) continue;
          const file = unwrap(parseRolloutFile(fileOf(release.releaseId, null)));
          const made = await parts.rollouts.begin(file, 'operator');
          if (made.ok) reached.count('order', 'own');
          await noted(parts, 'rollout.start', made.ok ? made.value.id : release.releaseId);
          return true;
        }
        return false;
      },
      ownTries,
    );
  }

  function say(one: Begun | undefined, what: 'pause' | 'resume' | 'abort' | 'abort-revert'): void {
    if (one === undefined) return;
    insist(
      `${what} ${one.id}`,
      () => (one.region.lost ? undefined : one.region),
      async ({ regionRollouts }) => {
        if (regionRollouts === null) return false;
        const done = await said(regionRollouts, one, what);
        if (done.ok) reached.count('order', `said ${what}`);
        return true;
      },
      ownTries,
    );
  }

  const said = (
    rollouts: NonNullable<RegistryParts['regionRollouts']>,
    { id }: Begun,
    what: 'pause' | 'resume' | 'abort' | 'abort-revert',
  ): Promise<Result<unknown>> => {
    if (what === 'pause') return rollouts.pause(id, 'operator', null);
    if (what === 'resume') return rollouts.resume(id, 'operator', { without: [], comment: null });
    return rollouts.abort(id, 'operator', what === 'abort-revert');
  };

  /** Whoever runs a region may stop there what another region ordered, and let it go on. */
  function sayThere(region: SimRegion | undefined, what: 'pause' | 'resume'): void {
    const row = region?.place.look(registryFile, (db) =>
      db.get<{ id: string }>(
        "SELECT rollout_id AS id FROM rollouts WHERE created_by LIKE 'region:%' ORDER BY number DESC LIMIT 1",
      ),
    );
    if (region === undefined || row == null) return;
    insist(
      `${what} ${row.id} in ${region.name}`,
      () => region,
      async ({ rollouts }) => {
        const done = await rollouts[what](row.id, 'operator', null);
        if (done.ok) reached.count('order', `said there ${what}`);
        return true;
      },
      ownTries,
    );
  }

  /** In the end whoever stopped something there lets it go on. */
  function letGoOnThere(region: SimRegion): void {
    const up = region.lost ? null : region.node.up();
    const rows = region.place.look(registryFile, (db) =>
      db.all<{ id: string }>(
        "SELECT rollout_id AS id FROM rollouts WHERE state = 'paused' AND reason = 'paused by operator'",
      ),
    );
    for (const { id } of up === null ? [] : (rows ?? []))
      up?.rollouts
        .resume(id, 'operator', null)
        .catch((thrown: unknown) => world.note(`nobody lets ${id} go on: ${String(thrown)}`));
  }

  function move(one: RegionDevice | undefined, index: number): void {
    const deviceId = one?.oracle.deviceId() ?? null;
    const from = regions.find(({ name }) => name === one?.region());
    const to = at(index) === from ? at(index + 1) : at(index);
    if (one === undefined || deviceId === null || from === undefined || to === undefined || from === to)
      return;
    // A region without any device would have nothing to roll out to.
    if (all.devices.filter((other) => other.region() === from.name).length < 2) return;
    if (from.lost || to.lost) return;
    moved += 1;
    const moveId = Buffer.from(drawBytes(12, world.seed, 'move', moved)).toString('hex');
    insist(
      `a claim for ${one.device.node} in ${to.name}`,
      () => to,
      async (parts) => {
        const dayMs = 86_400_000;
        const { claims } = parts.fleet;
        const words = { labels: {}, uses: 1, ttlMs: dayMs, createdBy: 'operator', deviceIds: [deviceId] };
        const nowMs = parts.core.clock.wall();
        apply(one, from, orderOf(moveId, deviceId, from, await claims.create(words), nowMs));
        return true;
      },
      ownTries,
    );
  }

  const orderOf = (
    moveId: string,
    deviceId: string,
    from: SimRegion,
    to: ClaimFile,
    nowMs: number,
  ): MoveOrder => ({
    ...{ schemaVersion: 1, moveId, deviceIds: [deviceId], from: from.name, to },
    ...{ issuedAtMs: nowMs, expiresAtMs: nowMs + 86_400_000 },
  });

  function apply(one: RegionDevice, from: SimRegion, order: MoveOrder): void {
    const envelope: Envelope = holders.move(order);
    insist(
      `move ${one.device.node} to ${order.to.region}`,
      () => from,
      async (parts) => {
        const done = await parts.fleet.moves.apply(envelope, 'operator');
        world.note(
          `move ${order.moveId}: ${done.ok ? 'applied' : `${done.refusal.code} ${done.refusal.detail}`}`,
        );
        if (done.ok) reached.count('move', 'ordered');
        // The root that bears it may not have come here yet.
        return done.ok || done.refusal.code !== 'move-signature-invalid';
      },
      ownTries,
    );
  }

  /** Paused for somebody's word, or waiting for a region that is gone: it goes on without, or it ends. */
  async function tend(one: Begun, parts: RegistryParts): Promise<void> {
    const rollouts = parts.regionRollouts;
    const found = await rollouts?.status(one.id);
    if (rollouts === null || found === undefined) return;
    if (!found.ok) {
      // A region that came back from a backup does not know it any more.
      one.isOpen = false;
      return;
    }
    const { state, reason } = found.value;
    one.words = `${state}: ${reason}`;
    const without = goneOf(found.value);
    one.isOpen =
      state === 'running' || state === 'paused' || (state === 'rolling-back' && without.length === 0);
    if (!one.isOpen || state === 'rolling-back') return;
    if (state === 'running' && without.length === 0) return;
    one.resumed += 1;
    const done =
      one.resumed > resumesMax
        ? await rollouts.abort(one.id, 'operator', false)
        : await rollouts.resume(one.id, 'operator', { without, comment: null });
    world.note(
      `${one.id} is ${state}, goes on without [${without}]: ${done.ok ? 'done' : done.refusal.detail}`,
    );
    if (!done.ok) await rollouts.abort(one.id, 'operator', false);
  }

  /** Regions that are lost, and those that all devices have left, where a rollout would wait for the next that comes. */
  const goneOf = ({ regions: parts }: RegionRolloutStatus): string[] => {
    const lost = lostNames();
    const isEmpty = (name: string): boolean => all.devices.every((one) => one.region() !== name);
    return parts
      .filter(({ region, state }) =>
        lost.includes(region)
          ? state !== 'left-out' && state !== 'succeeded'
          : state === 'running' && isEmpty(region),
      )
      .map(({ region }) => region);
  };

  return {
    take(step) {
      switch (step.kind) {
        case 'across':
          across(step.by, step.rollout);
          return;
        case 'own':
          own(at(step.region));
          return;
        case 'say':
          say(begun.at(-1), step.what);
          return;
        case 'say-there':
          sayThere(at(step.region), step.what);
          return;
        case 'island': {
          const region = at(step.region);
          if (region === undefined) return;
          for (const other of regions) if (other !== region) doors.cut(region.name, other.name, step.ms);
          reached.count('region', 'island');
          own(region);
          return;
        }
        case 'device-power':
          all.devices[step.device % Math.max(1, all.devices.length)]?.device.fail('cut', step.downMs);
          return;
        case 'move':
          move(all.devices[step.device % Math.max(1, all.devices.length)], step.to);
      }
    },

    tidyUp() {
      for (const one of all.devices) {
        const region = regions.find(({ name }) => name === one.region());
        const id = one.oracle.deviceId();
        if (region === undefined || region.lost || id === null) continue;
        // Enrolled after the backup that the region came back from: its certificate is good and nobody knows it.
        insist(
          `${one.device.node} is known in ${region.name}`,
          () => region,
          async ({ fleet }) => {
            const standing = await fleet.devices.standing(id);
            if (standing === null && one.region() === region.name) one.giveClaim(region.name, true);
            return true;
          },
        );
      }
    },

    lookAgain() {
      for (const region of regions) letGoOnThere(region);
      for (const one of begun) {
        if (one.region.lost) one.isOpen = false;
        const up = one.region.node.up();
        if (one.isOpen && up !== null)
          tend(one, up).catch((thrown: unknown) => world.note(`nobody tends ${one.id}: ${String(thrown)}`));
      }
    },

    open() {
      const one = begun.find(({ isOpen }) => isOpen);
      return one === undefined ? null : `${one.id} of ${one.region.name} is ${one.words}`;
    },
  };
}
