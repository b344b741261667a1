// Why: what an honest repository does after an attack with stolen keys: it goes beyond the attacker's numbers.
// Trusts: the hostile repository. Must never: help the device; only the repository acts.

import type { HostileRepository } from './hostile-repository.ts';
import { signerNamed } from './hostile-repository.ts';

/** Takes over the roots that the device was led through, and goes on from there with its own keys. */
export function followRoots(honest: HostileRepository, evil: HostileRepository): void {
  for (let version = honest.version('root') + 1; version <= evil.version('root'); version += 1) {
    const bytes = evil.files.get(`${version}.root.json`);
    if (bytes !== undefined) honest.files.set(`${version}.root.json`, bytes);
  }
  honest.current('root')['version'] = Math.max(honest.version('root'), evil.version('root'));
  honest.publishRoot({ alsoBy: evil.role('root').keys });
}

/** Signs next with numbers above those that the attacker used. */
export function goBeyond(honest: HostileRepository, evil: HostileRepository): void {
  for (const name of ['timestamp', 'snapshot', 'targets', 'acme', 'beta']) {
    honest.current(name)['version'] = Math.max(honest.version(name), evil.version(name));
  }
  honest.publish('targets', { alone: true });
  honest.list('targets');
  honest.publish('beta', { alone: true });
  honest.list('beta');
}

/** Gives a role another key and says so in a root that both generations sign. */
export function rotate(repository: HostileRepository, ...names: string[]): void {
  for (const name of names) repository.role(name).keys = [signerNamed(`${name}, next`)];
  repository.publishRoot();
}
