// Why: a fleet of light devices in the test's own process: real agents without inference children.
// Trusts: firmware-sim/load. Must never: stand in for anything but the models.

import { readFileSync } from 'node:fs';
import { type RunningAgent, type StartAgentOptions, startAgent } from '../../agent/daemon.ts';
import { createLightHost } from '../../firmware-sim/load/light-host.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openLog } from '../../shared/host/log.ts';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import type { Workplace } from './processes.ts';

export interface LightDevice {
  id: string;
  /** Of its local API, while it runs. */
  http(): string;
  stop(): Promise<void>;
  /** Starts it again with its identity. */
  restart(): Promise<void>;
}

/** Enrols (with a claim file) and runs one light device; `extra` as for startAgent. */
export async function startLightDevice(
  place: Workplace,
  claimFile: string,
  name: string,
  extra: Partial<StartAgentOptions> = {},
): Promise<LightDevice> {
  const claim = claimFileSchema.parse(JSON.parse(readFileSync(claimFile, 'utf8')));
  const start = (): Promise<RunningAgent> =>
    startAgent({
      stateFolder: place.path(name),
      http: { host: '127.0.0.1', port: 0 },
      claim,
      labels: {},
      reEnroll: false,
      clock: systemClock,
      entropy: systemEntropy,
      log: openLog({ level: 'error' }),
      version: '0.0.0-light',
      inference: ({ clock }) => createLightHost({ clock, loadMs: 50 }),
      reportEveryMs: 5_000,
      ...extra,
    });
  let running: RunningAgent | null = await start();
  const device: LightDevice = {
    id: running.deviceId,
    http: () => running?.httpUrl ?? '',
    async stop() {
      const ending = running;
      running = null;
      await ending?.stop();
    },
    async restart() {
      running = await start();
    },
  };
  place.onClose(() => device.stop());
  return device;
}
