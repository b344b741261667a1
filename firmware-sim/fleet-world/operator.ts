// Why: the people of one fleet: they push, roll out, abort, label, revoke, take backups and bring them back, and try again
// where the registry was away. Trusts: the scenario. Must never: know more than the registry tells them.

import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { PlaceImage } from '../machine/place.ts';
import { registryFile } from '../oracle/registry-oracle.ts';
import { attack } from './adversary.ts';
import type { FleetDevice, FleetWorld } from './fleet.ts';
import type { SimRelease } from './publisher.ts';
import type { RegistryParts } from './registry-node.ts';
import type { Act, RolloutChoice, Step } from './scenario.ts';

/** Between two tries of one thing that somebody wants. */
const againMs = 15_000;
const triesMax = 60;
/** Whoever asked and got no answer for this long asks again. */
const patienceMs = 30_000;
const approveEveryMs = 45_000;

type Releases = readonly [SimRelease, ...SimRelease[]];

export interface Operator {
  take(step: Step): void;
  /** After everything healed: what a person would put right. */
  tidyUp(): void;
}

export function createOperator(fleet: FleetWorld): Operator {
  const { world, registry, network, publisher, reached } = fleet;
  const rollouts: string[] = [];
  let backup: PlaceImage | null = null;
  /** An authority was made since the backup. With the backup restored, its key is gone, and what it signed with it. */
  let rotated = false;
  let authorityLost = false;
  let named = 0;

  /** Does it once the registry is up, again where the registry died over it, until there is an answer. */
  function wanted(
    what: string,
    work: (parts: RegistryParts) => Promise<Result<unknown>>,
    tries = triesMax,
  ): void {
    const parts = registry.up();
    if (parts === null) {
      if (tries > 0) world.later(againMs, () => wanted(what, work, tries - 1));
      return;
    }
    let answered = false;
    work(parts).then(
      (result) => {
        answered = true;
        world.note(
          `operator: ${what}: ${result.ok ? 'done' : `${result.refusal.code} ${result.refusal.detail}`}`,
        );
        if (!result.ok) reached.count('code', result.refusal.code);
      },
      (thrown: unknown) => {
        world.note(`operator: ${what}: ${String(thrown)}`);
      },
    );
    const look = (): void => {
      if (answered || tries <= 0) return;
      if (parts.of.alive) world.later(patienceMs, look);
      else wanted(what, work, tries - 1);
    };
    world.later(patienceMs, look);
  }

  function fileOf([release, ...others]: Releases, choice: RolloutChoice): string {
    const { waves, shadow, success, onGateFailure, site, unreachable, deadlineMs } = choice;
    const { growth, disruption, approvals, priority, queue, windows } = choice;
    named += 1;
    return JSON.stringify({
      apiVersion: 'lepton/v1',
      kind: 'Rollout',
      metadata: { name: `${release.model}-${named}` },
      spec: {
        ...(others.length === 0
          ? { release: release.releaseId }
          : { releases: [release, ...others].map(({ releaseId }) => releaseId) }),
        ...(growth === null
          ? { waves: waves.map(({ soakMs, ...wave }) => ({ ...wave, soak: `${soakMs}ms` })) }
          : { growth: { start: growth.start, factor: growth.factor, soak: `${growth.soakMs}ms` } }),
        ...(disruption === null
          ? {}
          : {
              disruption: {
                label: 'site',
                maxUnavailable: disruption.maxUnavailable,
                ...(disruption.maxSites === null ? {} : { maxSites: disruption.maxSites }),
              },
            }),
        ...(approvals === null
          ? {}
          : { approvals: { required: approvals.required, expires: `${approvals.expiresMs}ms` } }),
        priority,
        ...(queue ? { whenBusy: 'queue' } : {}),
        ...(site === null ? {} : { selector: { matchLabels: { site } } }),
        ...(shadow ? { shadow: { requests: 20, timeout: '5m' } } : {}),
        gates: { ...(success === null ? {} : { success }), ...(shadow ? { agreement: 0.9 } : {}) },
        deadlines: {
          fetching: `${deadlineMs.fetching}ms`,
          probing: `${deadlineMs.probing}ms`,
          shadowing: `${deadlineMs.shadowing}ms`,
          soaking: '20m',
          unreachable: { after: '30m', counts: unreachable },
        },
        onGateFailure,
        ...(windows === null ? {} : { windows: { ...windows, deferMax: `${windows.deferMax}ms` } }),
      },
    });
  }

  async function rollOut(
    parts: RegistryParts,
    releases: Releases,
    choice: RolloutChoice,
  ): Promise<Result<unknown>> {
    const file = unwrap(parseRolloutFile(fileOf(releases, choice)));
    const begun = await parts.rollouts.begin(file, 'operator');
    if (begun.ok) {
      rollouts.push(begun.value.id);
      if (choice.approvals !== null) allowLater(begun.value.id, choice.approvals);
    }
    return begun;
  }

  /** One after the other, some time apart: what the first said may have expired by then. */
  function allowLater(id: string, { required }: { required: number }): void {
    for (let person = 1; person <= required; person += 1)
      world.later(approveEveryMs * person, () => approve(id, `approver-${person}`));
  }

  function approve(id: string, by: string): void {
    wanted(`${by} approves ${id}`, (parts) => parts.rollouts.approve(id, by, { wave: null, comment: null }));
  }

  function pauseFor(id: string, ms: number): void {
    wanted(`pause ${id}`, (parts) => parts.rollouts.pause(id, 'operator', null));
    world.later(ms, () => resume(id));
  }

  function resume(id: string): void {
    wanted(`resume ${id}`, (parts) => parts.rollouts.resume(id, 'operator', null));
  }

  async function retry(parts: RegistryParts, id: string): Promise<Result<unknown>> {
    const again = await parts.rollouts.retry(id, 'operator', null);
    if (again.ok) rollouts.push(again.value.id);
    return again;
  }

  /** Everybody allows everything, and nothing stays paused that can go on. */
  function letRolloutsGoOn(): void {
    for (const id of rollouts) {
      resume(id);
      for (const by of ['approver-1', 'approver-2', 'approver-3']) approve(id, by);
    }
  }

  function pushAndRollOut(act: Act & { kind: 'release' }): void {
    wanted(`push ${act.model} ${act.release}`, async (parts) => {
      const pushed = await publisher.push(parts, { model: act.model, kind: act.release });
      if (!pushed.ok) return pushed;
      const other = fleet.terms.models.find((model) => model !== act.model);
      if (!act.rollout.together || other === undefined) return rollOut(parts, [pushed.value], act.rollout);
      const beside = await publisher.push(parts, { model: other, kind: 'good' });
      if (!beside.ok) return beside;
      // By name, so that what is bad is now the first, now the other.
      const [a, b] = [pushed.value, beside.value];
      return rollOut(parts, a.model < b.model ? [a, b] : [b, a], act.rollout);
    });
  }

  const deviceAt = (index: number): FleetDevice | undefined => fleet.devices[index];
  const known = (model: string): SimRelease[] =>
    publisher.signed().filter((release) => release.model === model);

  function revoke(one: FleetDevice | undefined): void {
    const id = one?.oracle.deviceId() ?? null;
    if (one === undefined || id === null) return;
    one.revoked = true;
    wanted(`revoke ${one.device.node}`, (parts) => parts.fleet.devices.revoke(id, 'operator'));
    world.later(60_000, () => one.device.retire());
  }

  /** Every claim out there is dead with the disk; the devices go on. */
  function restore(downMs: number): void {
    if (backup === null) return;
    fleet.truth.forked();
    authorityLost ||= rotated;
    world.note('the registry comes back from a backup');
    registry.restoreFrom(backup, downMs);
  }

  function runTwice(ms: number): void {
    if (fleet.twin !== null || registry.up() === null) return;
    const twin = fleet.addTwin();
    twin.boot();
    // Some reach the one, some the other.
    for (const [index, { device }] of fleet.devices.entries())
      if (index % 2 === 0) network.route(device.node, twin.node);
    world.later(ms, () => {
      twin.fail('exit', null);
      for (const { device } of fleet.devices) network.route(device.node, 'registry');
    });
  }

  function steal(one: FleetDevice | undefined, ms: number): void {
    if (one === undefined || one.oracle.deviceId() === null) return;
    one.unaccounted = true;
    one.stolen = true;
    const thief = fleet.addThief(one);
    world.note(`somebody has a copy of the disk of ${one.device.node}`);
    thief.boot();
    const until = world.nowMs() + ms;
    let last = '';
    let turns = 0;
    // Both come and go in turns under one name; a registry that sees two reports of each has proof.
    const watch = (): void => {
      const seen = network.connections().map(({ device }) => device);
      const now = [one.device.node, thief.node].find((node) => seen.includes(node)) ?? last;
      if (now !== last) turns += 1;
      last = now;
      if (world.nowMs() < until) {
        world.later(5_000, watch);
        return;
      }
      thief.retire();
      if (turns >= 6 && !fleet.truth.isForked()) noticed(one);
    };
    watch();
  }

  function noticed(one: FleetDevice): void {
    const id = one.oracle.deviceId();
    const status = registry.place.look(registryFile, (db) =>
      db.get<{ status: string }>('SELECT status FROM devices WHERE device_id = ?', id),
    );
    if (status?.status === 'active')
      world.violate(`${one.device.node} and its copy took turns, and nobody noticed`);
  }

  /** Nobody has a second device with this key. */
  function wronglySuspected(): void {
    if (fleet.truth.isForked()) return;
    const quarantined = registry.place.look(registryFile, (db) =>
      db.all<{ id: string }>("SELECT device_id AS id FROM devices WHERE status = 'quarantined'"),
    );
    for (const { id } of quarantined ?? []) {
      const one = fleet.devices.find(({ oracle }) => oracle.deviceId() === id);
      if (one !== undefined && !one.stolen)
        world.violate(`${one.device.node} was taken for two devices, and is one`);
    }
  }

  function defer(one: FleetDevice | undefined, forMs: number | null): void {
    const life = one?.device.up() ?? null;
    if (one === undefined || life === null) return;
    life.core.defer(forMs).then(
      (said) => {
        world.note(`${one.device.node} defers ${forMs}: ${said.ok ? 'done' : said.refusal.code}`);
        if (!said.ok) reached.count('code', said.refusal.code);
      },
      (thrown: unknown) => world.note(`${one.device.node} does not defer: ${String(thrown)}`),
    );
  }

  function act(act: Act): void {
    switch (act.kind) {
      case 'release':
        pushAndRollOut(act);
        return;
      case 'roll-out-older': {
        const release = known(act.model).at(-1 - act.back);
        if (release === undefined) return;
        wanted(`roll out ${release.releaseId} again`, (parts) => rollOut(parts, [release], act.rollout));
        return;
      }
      case 'abort': {
        const id = rollouts.at(-1);
        if (id === undefined) return;
        wanted(`abort ${id}`, (parts) => parts.rollouts.abort(id, 'operator', act.revert));
        return;
      }
      case 'pause': {
        const id = rollouts.at(-1);
        if (id !== undefined) pauseFor(id, act.ms);
        return;
      }
      case 'retry': {
        const id = rollouts.at(-1);
        if (id !== undefined) wanted(`retry ${id}`, (parts) => retry(parts, id));
        return;
      }
      case 'floor': {
        const counters = known(act.model).map(({ counter }) => counter);
        const floor = counters.at(-1);
        if (floor === undefined) return;
        wanted(`floor ${act.model}`, (parts) => publisher.raiseFloor(parts, act.model, floor));
        return;
      }
      case 'withdraw': {
        const release = known(act.model).at(-1);
        if (release === undefined) return;
        wanted(`withdraw ${release.releaseId}`, (parts) => publisher.withdraw(parts, release));
        return;
      }
      case 'label': {
        const id = deviceAt(act.device)?.oracle.deviceId() ?? null;
        if (id === null) return;
        fleet.truth.relabelled();
        wanted(`label ${act.device}`, (parts) => parts.fleet.devices.label(id, { site: act.site }));
        return;
      }
      case 'revoke':
        revoke(deviceAt(act.device));
        return;
      case 'rotate-authority':
        rotated = true;
        wanted('rotate the authority', (parts) => parts.fleet.authorities.rotate('operator'));
        return;
      case 'device-power':
        deviceAt(act.device)?.device.fail('cut', act.downMs);
        return;
      case 'device-crash':
        deviceAt(act.device)?.device.fail('exit', 10_000);
        return;
      case 'device-restart':
        deviceAt(act.device)?.device.restart();
        return;
      case 'device-joins': {
        fleet.addDevice({ site: 'north' });
        return;
      }
      case 'partition': {
        const node = act.device === null ? '*' : deviceAt(act.device)?.device.node;
        if (node !== undefined) network.partition(node, act.ms);
        return;
      }
      case 'registry-crash':
        registry.fail(act.how, act.downMs);
        return;
      case 'registry-restart':
        registry.restart();
        return;
      case 'backup':
        if (registry.up() === null) return;
        backup = registry.backup();
        rotated = false;
        return;
      case 'restore':
        restore(act.downMs);
        return;
      case 'twin':
        runTwice(act.ms);
        return;
      case 'thief':
        steal(deviceAt(act.device), act.ms);
        return;
      case 'clock':
        deviceAt(act.device)?.device.clocks.jump(act.ms);
        return;
      case 'defer':
        defer(deviceAt(act.device), act.ms);
        return;
      case 'clock-sync':
        deviceAt(act.device)?.device.clocks.sync();
        return;
      case 'attack': {
        const victim = deviceAt(act.device);
        if (victim !== undefined) attack(fleet, victim, act.how);
      }
    }
  }

  return {
    take: (step) => {
      const text = Object.values(step.act)
        .filter((value) => typeof value !== 'object')
        .join(' ');
      world.note(`step ${step.number} ${text}`);
      world.mark({ node: 'world', kind: 'step', text });
      act(step.act);
    },
    tidyUp: () => {
      wronglySuspected();
      letRolloutsGoOn();
      for (const { device } of fleet.devices) network.route(device.node, 'registry');
      fleet.twin?.fail('exit', null);
      // Two devices showed one key: the copy is gone, so the true one may come back.
      for (const one of fleet.devices) {
        const id = one.oracle.deviceId();
        if (id === null || one.revoked) continue;
        wanted(`release ${one.device.node}`, async (parts) => {
          const standing = await parts.fleet.devices.standing(id);
          // Enrolled after the backup that the registry came back from: its certificate is good and nobody knows it.
          // And a key that was stolen is no device's own any more.
          if (standing === null || one.stolen || authorityLost) fleet.enrolAgain(one);
          if (standing !== 'quarantined') return { ok: true, value: undefined };
          return parts.fleet.devices.release(id, 'operator');
        });
      }
    },
  };
}
