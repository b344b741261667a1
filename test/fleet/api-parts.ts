// Why: what the routes need, of a world in memory. Trusts: world.ts. Must never: post anything anywhere by itself.

import type { RegistryParts } from '../../registry/api/context.ts';
import { createWebhooks } from '../../registry/outlets/webhooks.ts';
import type { HttpPost } from '../../shared/kernel/ports.ts';
import { ok } from '../../shared/kernel/result.ts';
import type { World } from './world.ts';

export function apiParts(world: World, post: HttpPost = async () => ok(200)): RegistryParts {
  const { core, bus, fleet, rollouts } = world;
  return { ...core, bus, fleet, rollouts, webhooks: createWebhooks({ ...core, events: fleet.events, post }) };
}
