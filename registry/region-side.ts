// Why: this registry's side towards other regions on a real machine: its key, its line to them, its door for them.
// Trusts: the folder's permissions for the key. Must never: open a door that nobody asked for.

import { publicKeyOf } from '../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../shared/crypto/spki.ts';
import { createRegionLine, openRegionDoor, regionIdentity } from '../shared/host/region-door.ts';
import type { Disk, DoorHandler, Entropy, Place, RegionLine } from '../shared/kernel/ports.ts';
import { refuse } from '../shared/kernel/result.ts';
import type { RegionList } from '../shared/wire/regions.ts';
import { bracketed, reachable } from './api/listen.ts';
import type { BeginJoining } from './regions/joining.ts';
import type { OwnDoor } from './regions/members.ts';
import type { RegistryOptions } from './registry.ts';
import { readSeed, writeOnce } from './signing/keys.ts';
import type { Settings } from './store/settings.ts';

export interface RegionSide {
  line: RegionLine & { close(): void };
  door: OwnDoor;
  joining: BeginJoining | null;
  serve(handler: DoorHandler): void;
  /** Opens the door where it is wanted: asked for, or this region is one of several. */
  open(settings: Settings, list: RegionList | null): Promise<void>;
}

const keyFile = 'region-door.pem';

async function doorSeed(disk: Disk, entropy: Entropy): Promise<Uint8Array> {
  const kept = await readSeed(disk, keyFile);
  if (kept !== null) return kept;
  const seed = entropy.bytes(32);
  await writeOnce(disk, keyFile, pkcs8PemFromSeed(seed));
  return seed;
}

export async function openRegionSide(parts: {
  options: RegistryOptions;
  place: Place;
  closers: (() => Promise<void>)[];
}): Promise<RegionSide> {
  const { options, place, closers } = parts;
  const { clock, entropy, log, region } = options;
  const seed = await doorSeed(place.disk('keys'), entropy);
  const identity = await regionIdentity({ seed, region, clock, entropy });
  const line = createRegionLine({ identity, clock });
  closers.push(async () => line.close());
  let handler: DoorHandler = async () => ({ status: 503, bytes: notReady });
  let url: string | null = null;
  let isOpen = false;

  async function listen(keptPort: number | null): Promise<number> {
    const { host, port } = options.regions ?? { host: '127.0.0.1', port: 0 };
    const door = await openRegionDoor({
      ...{ host, identity, clock, log },
      port: port === 0 ? (keptPort ?? 0) : port,
      handler: (request) => handler(request),
    });
    closers.push(() => door.close());
    url = options.advertiseRegions ?? `https://${bracketed(reachable(host))}:${door.port}`;
    isOpen = true;
    return door.port;
  }

  const door: OwnDoor = {
    url: () => (isOpen ? url : null),
    publicKey: Buffer.from(publicKeyOf(seed)).toString('hex'),
  };
  let openedPort: number | null = null;
  async function openOnce(settings: Settings): Promise<void> {
    openedPort ??= await listen(await settings.number('regions.port'));
    await settings.set('regions.port', String(openedPort));
  }
  const { invitation, homeUrl } = options;
  const joining: BeginJoining | null =
    invitation === undefined
      ? null
      : async (settings) => {
          // Others learn the address with the joining, so that the door must be there before.
          await openOnce(settings);
          return { invitation, line, ownUrl: url ?? '', homeUrl: homeUrl ?? null };
        };
  return {
    line,
    door,
    joining,
    serve(next) {
      handler = next;
    },
    async open(settings, list) {
      if (options.regions !== undefined || list !== null) await openOnce(settings);
    },
  };
}

const notReady = new TextEncoder().encode(
  JSON.stringify(refuse('registry-not-ready', 'it is starting or stopping').refusal),
);
