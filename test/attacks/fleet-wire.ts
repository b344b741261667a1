// Why: attacks on a device through its broker: the retained `desired`, by whoever owns the bus.
// Trusts: the stand-in for what an honest registry would send. Must never: end before the victim was shown to
// follow its own director still.

import assert from 'node:assert/strict';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { Assignment } from '../../shared/wire/messages.ts';
import { type AttackCase, withWireLab } from './attack-case.ts';
import { signerNamed } from './hostile-repository.ts';
import type { WireLab } from './wire-bench.ts';

/** The device follows its director, hears the attacker's message, and must follow its director again. */
function onDesired(
  id: string,
  attack: string,
  code: ErrorCode,
  forge: (lab: WireLab) => ReturnType<WireLab['registry']['sign']>,
): AttackCase {
  return {
    id: `wire-${id}`,
    group: 'fleet',
    attack,
    code,
    where: 'wire',
    wireOnly: true,
    run: (bench) =>
      withWireLab(bench, async (lab) => {
        for (const when of ['first', 'second'])
          assert.equal(await lab.update('acme/detector/1.0.0'), 'accepted', `the ${when} honest assignment`);
        const observed = await lab.publish(forge(lab));
        lab.honest.release('acme/detector/1.1.0');
        assert.equal(await lab.update('acme/detector/1.1.0'), 'accepted', 'the honest assignment afterwards');
        return observed;
      }),
  };
}

/** What an attacker may write who can make any assignment. */
function forged(lab: WireLab, changes: Partial<Assignment>): Assignment {
  const releases = [lab.honest.assignmentOf('acme/detector/1.0.0')];
  return lab.registry.assign(lab.deviceId, releases, { epoch: 1_000_000, ...changes });
}

export const wireAttacks: AttackCase[] = [
  onDesired(
    'assignment-other-device',
    'another device’s genuine assignment with a much higher epoch, retained for this one',
    'assignment-other-device',
    (lab) => lab.registry.sign(forged(lab, { deviceId: 'e'.repeat(32) })),
  ),
  onDesired(
    'assignment-stranger',
    'an assignment signed by somebody else',
    'assignment-signature-invalid',
    (lab) => lab.registry.sign(forged(lab, {}), signerNamed('mallory')),
  ),
  onDesired('assignment-replayed', 'an older assignment of this very device', 'assignment-replayed', (lab) =>
    lab.registry.sign(forged(lab, { epoch: 1, issuedAtMs: 1 })),
  ),
];
