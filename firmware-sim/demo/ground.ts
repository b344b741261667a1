// Why: what every step of the demo stands on: the processes, the clock, the view, and a wait that keeps looking.
// Trusts: place.ts for the processes. Must never: wait on where a process has ended or a stop was asked for.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import type { Application } from '../sensors/application.ts';
import type { FleetReader } from './fleet.ts';
import type { Daemon, Place } from './place.ts';
import { createView, type Scene, type SceneDevice, type Stage } from './view.ts';

/** A machine with its application and its agent. */
export interface Station {
  scene: SceneDevice;
  agentUrl: string;
  stateFolder: string;
  application: Application;
}

export interface Ground {
  place: Place;
  clock: Clock;
  scene: Scene;
  daemons: Daemon[];
  stations: Station[];
  /** Set as soon as the registry is up. */
  registry: { http: string; token: string; tokenFile: string; reader: FleetReader } | null;
  elapsedMs(): number;
  say(line: string): void;
  showRollout(status: RolloutStatus): void;
  end(text: string): void;
  /** Waits for a value other than null, looking at the fleet meanwhile. Faults: `demo-failed`, `interrupted`. */
  until<T>(what: string, check: () => Promise<T | null> | T | null): Promise<T>;
  /** A command as a user types it; its stdout. */
  lepton(...args: string[]): Promise<string>;
}

const lookEveryMs = 200;
const stepMs = 120_000;

export function prepareGround(parts: {
  place: Place;
  clock: Clock;
  stage: Stage;
  signal: AbortSignal;
}): Ground {
  const { place, clock, stage, signal } = parts;
  const startedMs = clock.mono();
  const view = createView(stage);

  const checkAlive = (): void => {
    if (signal.aborted) {
      const hint = 'all that it started has ended, its folder is gone';
      throw new FleetError('interrupted', 'the demo was asked to stop before its end', { hint });
    }
    const dead = ground.daemons.find((daemon) => !daemon.running());
    if (dead === undefined) return;
    throw new FleetError('demo-failed', `${dead.name} has ended: ${place.logTail(dead.name, 3).join(' ')}`);
  };

  const look = async (): Promise<void> => {
    const { scene, stations, registry } = ground;
    if (stage.terminal === null) return;
    const views = registry === null ? [] : await registry.reader.devices();
    for (const device of scene.devices) device.view = views.find(({ id }) => id === device.id) ?? null;
    for (const { scene: device, application } of stations) device.application = application.counts();
    view.draw(scene, ground.elapsedMs());
  };

  const ground: Ground = {
    place,
    clock,
    scene: { registry: 'starting', devices: [], rollouts: [] },
    daemons: [],
    stations: [],
    registry: null,
    elapsedMs: () => clock.mono() - startedMs,
    say: (line) => {
      view.say(line, ground.elapsedMs());
      view.draw(ground.scene, ground.elapsedMs());
    },
    showRollout: (status) => view.rollout(status, ground.elapsedMs()),
    end: view.end,
    until: async (what, check) => {
      const endMs = clock.mono() + stepMs;
      for (;;) {
        checkAlive();
        const value = await check();
        await look();
        if (value !== null) return value;
        if (clock.mono() > endMs) throw new FleetError('demo-failed', `waited in vain: ${what}`);
        await clock.timer(lookEveryMs).done;
      }
    },
    lepton: async (...args) => {
      checkAlive();
      ground.say(`$ lepton ${args.join(' ')}`);
      const { registry } = ground;
      const env = registry === null ? {} : { LEPTON_REGISTRY: registry.http, LEPTON_TOKEN: registry.token };
      return place.run('lepton', args, env);
    },
  };
  view.begin();
  return ground;
}

/** The registry, once it is up. */
export function registryOf(ground: Ground): NonNullable<Ground['registry']> {
  if (ground.registry === null) throw new FleetError('internal', 'the registry is not up yet');
  return ground.registry;
}
