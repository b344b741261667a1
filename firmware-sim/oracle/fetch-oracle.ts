// Why: what a device writes of a file that is on its way is that file, byte by byte at its place. The digest of the whole
// would find it out in the end and hide that every cut costs a whole download.
// Trusts: the publisher for the bytes. Must never: judge what somebody changed on its way, or what turned over on the disk.

import type { Publisher } from '../fleet-world/publisher.ts';
import type { World } from '../world.ts';
import type { Truth } from './truth.ts';

/** A file of a release that is fetched as it is; one that is smaller-made has another name. */
const onItsWay = /^blobs\/([0-9a-f]{64})\.unverified$/;

/** Told of each append to a file of the device. */
export function createFetchOracle(parts: {
  world: World;
  node: string;
  truth: Truth;
  publisher: Publisher;
  isRotted(path: string): boolean;
}): (path: string, live: Uint8Array) => void {
  const { world, node, truth, publisher } = parts;
  return (path, live) => {
    const sha256 = onItsWay.exec(path)?.[1];
    const whole = sha256 === undefined ? undefined : publisher.bytesOf(sha256);
    if (whole === undefined || truth.isTampered() || parts.isRotted(path)) return;
    if (Buffer.compare(live, whole.subarray(0, live.length)) === 0 && live.length <= whole.length) return;
    const at = live.findIndex((byte, index) => byte !== whole[index]);
    world.violate(`${node}: what is fetched of ${sha256?.slice(0, 8)} is another file from byte ${at} on`);
  };
}
