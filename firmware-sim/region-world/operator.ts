// Why: the people of several regions: they invite, push, restart, restore, and hand the home over, and ask again until it
// is done. Trusts: the registries' own functions, as the API calls them. Must never: help a registry over a fault.

import type { KeyBundle } from '../../shared/wire/key-plan.ts';
import { draw, drawInt } from '../chance.ts';
import type { PlaceImage } from '../machine/place.ts';
import { createFleetOperator } from './fleet-operator.ts';
import { againMs, createPeople } from './people.ts';
import type { RegionsWorld, SimRegion } from './regions.ts';
import type { RegionStep, RegionTerms } from './scenario.ts';

export interface RegionOperator {
  /** Home comes up, takes its keys offline, invites the others. */
  begin(): void;
  take(step: RegionStep): void;
  /** What was begun and is not finished is finished now. */
  tidyUp(): void;
  /** People look at what goes on, from time to time once everything healed. */
  lookAgain(): void;
  /** What was begun and is not done yet; null: everything is. */
  open(): string | null;
}

export function createRegionOperator(all: RegionsWorld, terms: RegionTerms): RegionOperator {
  const { world, holders, publisher, regions, doors, reached } = all;
  const { seed } = world;
  const images = new Map<string, PlaceImage>();
  const names = ['west', 'east', 'north'];
  let movedTo: SimRegion | null = null;
  const people = createPeople(world);
  const { insist } = people;
  let handingOver = false;
  let isTidying = false;

  /** The region that signs, as far as anybody knows. */
  const home = (): SimRegion | undefined => movedTo ?? regions[0];

  const fleet = createFleetOperator(all, people, home);

  function invite(name: string): void {
    insist(
      `invite ${name}`,
      () => regions[0],
      async ({ regions: abroad }) => {
        if (abroad === null) return false;
        if (regions.some((one) => one.name === name)) return true;
        const invitation = await abroad.invite({ region: name, createdBy: 'operator', ttlMs: 86_400_000 });
        if (!invitation.ok) return invitation.refusal.code === 'region-exists';
        if (!regions.some((one) => one.name === name)) withDevices(all.join(invitation.value));
        return true;
      },
    );
  }

  function withDevices(region: SimRegion): void {
    for (let count = 0; count < terms.devices; count += 1) all.addDevice(region);
  }

  function pushTo(model: string): void {
    // As a publisher's tool: the same release again until somebody has taken it, at whoever is home.
    insist(`push ${model}`, home, async (parts) => {
      const pushed = await publisher.push(parts, { model, kind: 'good' });
      if (pushed.ok) reached.count('region', 'push');
      return pushed.ok || !['not-home', 'metadata-version-invalid', 'conflict'].includes(pushed.refusal.code);
    });
  }

  /** Nobody hands over while a region is joining: a new home knows the regions that the list it held names. */
  const isSettled = (): boolean => {
    const lists = regions
      .filter((one) => !one.lost)
      .map(({ place }) =>
        place.look('registry.sqlite', (db) =>
          Buffer.from(
            db.get<{ envelope: Uint8Array }>('SELECT envelope FROM region_list')?.envelope ?? [],
          ).toString('base64'),
        ),
      );
    return regions.length === terms.regions && lists.every((one) => one !== null && one === lists[0]);
  };

  function handOver(to: SimRegion, lost: boolean, last = false): void {
    if (!last && isTidying) return;
    if (!last && !isSettled()) {
      world.later(againMs, () => handOver(to, lost));
      return;
    }
    const from = home();
    if (from === undefined || from === to || to.lost || handingOver) return;
    handingOver = true;
    if (lost && regions.filter((one) => !one.lost).length > 1) {
      from.lost = true;
      from.node.fail('cut', null);
      world.note(`${from.name} is lost for good`);
      reached.count('region', 'home lost');
    }
    let bundle: KeyBundle | null = null;
    insist(
      `hand over to ${to.name}`,
      () => to,
      async ({ core }) => {
        const { keys } = core.repository;
        const nowMs = core.clock.wall();
        if (bundle === null) {
          const plan = await keys.plan({ newOnline: true });
          bundle = holders.handOver(plan, nowMs);
          // They signed another root of that version, which this region has not heard of.
          if (bundle === null) return false;
        }
        const installed = await keys.install(bundle);
        if (!installed.ok) {
          world.note(`${to.name} does not take over: ${installed.refusal.code} ${installed.refusal.detail}`);
          // Made for documents that are not in force any more, or its fresh keys were lost in a restore.
          if (['conflict', 'keys-not-held'].includes(installed.refusal.code)) bundle = null;
          return false;
        }
        movedTo = to;
        handingOver = false;
        reached.count('region', 'home moved');
        return true;
      },
    );
  }

  const twisted = (how: Extract<RegionStep, { kind: 'twist' }>['how'], number: number) => {
    const first = new Map<string, Uint8Array>();
    return (path: string, bytes: Uint8Array): Uint8Array => {
      if (bytes.length === 0) return bytes;
      // Numbers and words of a list are its source's own: another word of it is no lie that could be found out.
      if (how === 'flip' && path.includes('/streams/')) return bytes;
      if (how === 'empty') return new Uint8Array();
      if (how === 'cut') return bytes.subarray(0, Math.floor(bytes.length / 2));
      if (how === 'old') {
        if (!first.has(path)) first.set(path, bytes);
        return first.get(path) ?? bytes;
      }
      const changed = Uint8Array.from(bytes);
      const place = drawInt(0, bytes.length - 1, seed, 'flip', number, path);
      changed[place] = (changed[place] ?? 0) ^ 1;
      return changed;
    };
  };

  function take(step: RegionStep): void {
    const at = (index: number): SimRegion | undefined => regions[index % Math.max(1, regions.length)];
    switch (step.kind) {
      case 'push':
        pushTo(step.model);
        return;
      case 'withdraw': {
        const signed = publisher.signed();
        const release = signed[step.pick % Math.max(1, signed.length)];
        if (release === undefined) return;
        insist(`withdraw ${release.releaseId}`, home, async (parts) => {
          const done = await publisher.withdraw(parts, release);
          if (done.ok) reached.count('region', 'withdrawn');
          return done.ok || done.refusal.code !== 'not-home';
        });
        return;
      }
      case 'floor':
        insist(`floor of ${step.model}`, home, async (parts) => {
          const counters = publisher.signed().filter((one) => one.model === step.model);
          const done = await publisher.raiseFloor(parts, step.model, Math.max(0, counters.length - 1));
          return done.ok || done.refusal.code !== 'not-home';
        });
        return;
      case 'cut-line': {
        const [a, b] = [at(step.a), at(step.b)];
        if (a !== undefined && b !== undefined && a !== b) doors.cut(a.name, b.name, step.ms);
        return;
      }
      case 'restart':
        at(step.region)?.node.restart();
        return;
      case 'power':
        at(step.region)?.node.fail('cut', step.downMs);
        return;
      case 'backup': {
        const region = at(step.region);
        if (region?.node.up() != null) images.set(region.name, region.node.backup());
        return;
      }
      case 'restore': {
        const region = at(step.region);
        const image = region === undefined ? undefined : images.get(region.name);
        if (region === undefined || image === undefined) return;
        // A home that forgot what it signed is healed by devices' bytes, which is judged in the world of one region.
        if (region === home()) return;
        region.restoreFrom(image);
        reached.count('region', 'restored');
        return;
      }
      case 'twist': {
        const region = at(step.region);
        if (region === undefined) return;
        doors.twist(region.name, twisted(step.how, step.number));
        world.later(step.ms, () => doors.twist(region.name, null));
        reached.count('region', `twisted ${step.how}`);
        return;
      }
      case 'hand-over': {
        const to = at(step.to);
        if (to !== undefined) handOver(to, step.lost);
        return;
      }
      default:
        fleet.take(step);
    }
  }

  return {
    begin() {
      const first = all.first();
      withDevices(first);
      let bundle: KeyBundle | null = null;
      insist(
        'the first ceremony',
        () => first,
        async ({ core }) => {
          const { keys } = core.repository;
          // The namespace's delegation needs the targets key, which goes offline with it.
          if ((await core.repository.publisher('acme')) === null) {
            const made = await core.repository.delegate('acme', [publisher.publicKeyHex], 1);
            if (!made.ok) return false;
          }
          bundle ??= holders.takeOffline(await keys.plan({ newOnline: true }), core.clock.wall());
          if (bundle === null) return false;
          const installed = await keys.install(bundle);
          if (!installed.ok && ['conflict', 'keys-not-held'].includes(installed.refusal.code)) bundle = null;
          if (!installed.ok) return false;
          for (const name of names.slice(0, terms.regions - 1)) invite(name);
          return true;
        },
      );
    },
    take,
    tidyUp() {
      // Somebody has to be home: where the last one was lost and nobody had taken over, one does now.
      isTidying = true;
      if (home()?.lost === true && !handingOver) {
        const to = regions.find((one) => !one.lost);
        if (to !== undefined) handOver(to, false, true);
      }
      if (draw(seed, 'last-push') < 0.7) pushTo('alpha');
      fleet.tidyUp();
    },
    lookAgain: fleet.lookAgain,
    open: () => (people.isDone() ? fleet.open() : 'somebody still asks'),
  };
}
