// Why: a real registry in the test's own process, so that a test can speak with its bus or its keys.
// Trusts: the place's folder. Must never: outlive the place.

import { type Registry, startRegistry } from '../../registry/registry.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openLog } from '../../shared/host/log.ts';
import { type LeptonRunner, leptonRunner, type Workplace } from './processes.ts';

export const testRegion = 'eu-west';

/** Starts it on free ports, or on those that its folder names; ended with the place. `loaded` as in leptonRunner. */
export async function openTestRegistry(
  place: Workplace,
  { folder = 'registry', loaded = false }: { folder?: string; loaded?: boolean } = {},
): Promise<{ registry: Registry; lepton: LeptonRunner }> {
  const registry = await startRegistry({
    dataFolder: place.path(folder),
    region: testRegion,
    http: { host: '127.0.0.1', port: 0 },
    mqtt: { host: '127.0.0.1', port: 0 },
    version: '0.0.0-test',
    clock: systemClock,
    entropy: systemEntropy,
    log: openLog({ level: 'error' }),
  });
  place.onClose(() => registry.stop());
  const address = { http: registry.httpUrl, token: registry.adminToken };
  return { registry, lepton: leptonRunner(place, address, loaded) };
}
