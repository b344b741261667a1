// Why: what the loop between regions does with the lists of moves, said by a test that is the other region.
// Trusts: the fleet of test/fleet/world.ts. Must never: check anything but that the list is there.

import assert from 'node:assert/strict';
import type { OutgoingStream, StreamItem } from '../../registry/regions/streams.ts';
import type { World } from '../fleet/world.ts';
import { quiet } from '../telemetry/ingest-world.ts';

/** Takes items of another region's list as the loop between regions does. */
export async function pulled(
  world: World,
  name: string,
  peer: string,
  bodies: readonly unknown[],
): Promise<void> {
  const stream = world.fleet.moves.incoming.find((one) => one.name === name);
  assert.ok(stream);
  const items = bodies.map((body, at): StreamItem => ({ id: at + 1, body }));
  await world.store.tx((db) => stream.takeIn(db, peer, items));
  stream.taken?.(peer);
  await quiet(world);
  await world.settle();
}

export async function offered(world: World, name: string, peer: string): Promise<StreamItem[]> {
  const stream: OutgoingStream | undefined = world.fleet.moves.outgoing.find((one) => one.name === name);
  assert.ok(stream);
  return world.store.tx((db) => stream.readIn(db, peer, 0, 100));
}
