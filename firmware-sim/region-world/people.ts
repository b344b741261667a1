// Why: people ask a registry again until it has done what they want. Trusts: nothing.
// Must never: wait for ever for a registry that died over it.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { RegistryParts } from '../fleet-world/registry-node.ts';
import type { World } from '../world.ts';
import type { SimRegion } from './regions.ts';

/** A person looks again after a while. */
export const againMs = 15_000;
const patienceMs = 60_000;
const triesMax = 400;

export interface People {
  /** Tries `work` with the region's parts until it says that it is done. */
  insist(
    what: string,
    region: () => SimRegion | undefined,
    work: (parts: RegistryParts) => Promise<boolean>,
    tries?: number,
  ): void;
  /** Nobody asks any more. */
  isDone(): boolean;
}

export function createPeople(world: World): People {
  let open = 0;
  return {
    insist(what, region, work, tries = triesMax) {
      open += 1;
      let left = tries;
      const attempt = (): void => {
        const up = region()?.node.up() ?? null;
        let answered = false;
        const again = (words: string): void => {
          if (answered) return;
          answered = true;
          left -= 1;
          if (left > 0) world.later(againMs, attempt);
          else {
            open -= 1;
            world.note(`given up: ${what}: ${words}`);
          }
        };
        if (up === null) {
          again('it is down');
          return;
        }
        // A registry that dies under a call never answers it.
        world.later(patienceMs, () => again('no answer'));
        work(up).then(
          (done) => {
            if (answered) return;
            if (!done) {
              again('not now');
              return;
            }
            answered = true;
            open -= 1;
            world.note(`done: ${what}`);
          },
          (thrown: unknown) => again(asFleetError(thrown).message),
        );
      };
      attempt();
    },
    isDone: () => open === 0,
  };
}
