// Why: a device says which metadata it holds and gets what it lacks in one file (shared/wire/refresh.ts).
// Trusts: nothing in the question but what it is good for: choosing files that anybody may have.
// Must never: give a device two different parcels for the ranges of one, or grow with the number of devices.

import { canonicalJson } from '../../shared/crypto/canonical-json.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { RefreshTarget } from '../../shared/wire/messages.ts';
import { encodeParcel, type Parcel, packParcel, parcelPlainBytesMax } from '../../shared/wire/refresh.ts';
import type { RegistryCore } from '../core.ts';
import type { RegistryDb } from '../store/open.ts';
import { behindOf, heldRoles } from './held-versions.ts';
import { fleetLimits } from './limits.ts';

export interface Parcels {
  /**
   * The parcel for this question. From offset 0 it is what is current; further on it is the one that the device
   * began with, null where that is no longer there and the device must begin again.
   */
  of(
    deviceId: string,
    target: RefreshTarget,
    range: { offset: number; length: number },
  ): Promise<Uint8Array | null>;
  /** The device holds what is newer than ours; numbers alone, nothing is taken from them. */
  onBehind(listener: (deviceId: string, what: string[]) => void): void;
}

/** More namespaces than a device can have releases of are no question. */
export const parcelNamespacesMax = 256;
/** Kept at one time: a fleet that refreshes lacks the same few things. */
const parcelsMax = 1_024;
/** The list of files in a parcel is bounded (shared/wire/refresh.ts). */
const filesMax = 1_000;

/** With room for the index, also of a thousand files. */
const plainBytesMax = parcelPlainBytesMax - 1024 * 1024;

interface Role {
  version: number;
  file: string;
}

/** Which files answer a question, and what the device is ahead in. */
interface Choice {
  names: string[];
  behind: Parcel['behind'];
  behindNamespaces: string[];
}

/** Pure: what a device that holds this lacks of what is current. */
export function chooseFiles(
  roles: ReadonlyMap<string, Role>,
  target: Pick<RefreshTarget, 'held' | 'namespaces'>,
): Choice {
  const { held, namespaces } = target;
  const versionOf = (role: string): number => roles.get(role)?.version ?? 0;
  const names: string[] = [];
  const rootsFrom = (version: number, role: string, prefix: string): void => {
    // A device walks them one by one (TUF 1.0.34 §5.3.3), at most so many in one refresh.
    const last = Math.min(versionOf(role), version + limits.rootRotationsMax);
    for (let next = version + 1; next <= last; next += 1) names.push(`${prefix}${next}.root.json`);
  };
  rootsFrom(held.root, 'root', '');
  rootsFrom(held.regionRoot, 'region/root', 'region/');
  // With a new root the numbers of the others may have begun anew (§5.3.11): then every difference counts.
  const newRoot = held.root < versionOf('root');
  const lacks = (role: string, version: number): boolean =>
    newRoot ? versionOf(role) !== version : versionOf(role) > version;
  for (const name of ['timestamp', 'snapshot', 'targets'] as const) {
    const role = roles.get(heldRoles[name]);
    // Signed with a key that may be new, under a number that may be the same.
    const signedOnline = newRoot && name !== 'targets';
    if (role !== undefined && (signedOnline || lacks(heldRoles[name], held[name]))) names.push(role.file);
  }
  const behindNamespaces: string[] = [];
  for (const [namespace, version] of Object.entries(namespaces)) {
    const role = roles.get(`ns/${namespace}`);
    if (role !== undefined && lacks(`ns/${namespace}`, version)) names.push(role.file);
    if (!newRoot && version > (role?.version ?? 0)) behindNamespaces.push(namespace);
  }
  const versions = new Map([...roles].map(([role, { version }]) => [role, version]));
  const behind = behindOf(versions, held);
  // Who may sign for a namespace that we do not have stands in the device's targets, whatever their number.
  const isUnknown = behindNamespaces.some((namespace) => !roles.has(`ns/${namespace}`));
  if (isUnknown && !behind.includes('targets')) behind.push('targets');
  return { names: names.slice(0, filesMax), behind, behindNamespaces };
}

export function createParcels(core: RegistryCore): Parcels {
  const { store, deflate, clock } = core;
  const { qb } = store;
  const listeners = new Set<(deviceId: string, what: string[]) => void>();
  /** By what is in them; the longest unused first. `size` is 0 until it is made. */
  const made = new Map<string, { bytes: Promise<Uint8Array>; size: number }>();
  let madeBytes = 0;
  /** What a device is in the middle of fetching: the key of its question, and of its parcel. */
  const begun = new Map<string, { question: string; parcel: Uint8Array; untilMs: number }>();
  let begunBytes = 0;

  function rolesIn(db: RegistryDb, namespaces: readonly string[]): Map<string, Role> {
    const wanted = [...Object.values(heldRoles), ...namespaces.map((namespace) => `ns/${namespace}`)];
    const rows = db.all(
      qb.selectFrom('metadata_roles').select(['role', 'version', 'file']).where('role', 'in', wanted),
    );
    return new Map(rows.map(({ role, version, file }) => [role, { version, file }]));
  }

  function bytesIn(db: RegistryDb, names: readonly string[]): Map<string, Uint8Array> {
    const files = new Map<string, Uint8Array>();
    let bytes = 0;
    for (const name of names) {
      const row = db.first(qb.selectFrom('metadata_files').select('bytes').where('name', '=', name));
      // What does not fit any more is fetched by its name; a root that is missing ends their row.
      if (row === undefined || bytes + row.bytes.length > plainBytesMax) break;
      bytes += row.bytes.length;
      files.set(name, row.bytes);
    }
    return files;
  }

  async function encode(parcel: Parcel): Promise<Uint8Array> {
    const plain = packParcel(parcel);
    // Nothing to send deflates to nothing shorter.
    const deflated = parcel.files.size === 0 ? null : await deflate.deflate(plain);
    return encodeParcel(plain, deflated);
  }

  function forget(key: string): void {
    madeBytes -= made.get(key)?.size ?? 0;
    made.delete(key);
  }

  /** One parcel for all devices that lack the same. */
  function cached(parcel: Parcel): Promise<Uint8Array> {
    const { behind, behindNamespaces } = parcel;
    const digests = [...parcel.files].map(([name, bytes]) => `${name} ${sha256Hex(bytes)}`);
    const key = [...digests, ...behind, '', ...behindNamespaces].join('\n');
    const known = made.get(key);
    if (known !== undefined) {
      made.delete(key);
      made.set(key, known);
      return known.bytes;
    }
    const entry = { bytes: encode(parcel), size: 0 };
    made.set(key, entry);
    entry.bytes.then(
      ({ length }) => {
        if (made.get(key) !== entry) return;
        entry.size = length;
        madeBytes += length;
        for (const oldest of made.keys()) {
          if (madeBytes <= fleetLimits.parcelsBytesMax && made.size <= parcelsMax) break;
          forget(oldest);
        }
      },
      // What failed is made again the next time; whoever asked is told by the promise itself.
      () => made.delete(key),
    );
    return entry.bytes;
  }

  function end(deviceId: string): void {
    begunBytes -= begun.get(deviceId)?.parcel.length ?? 0;
    begun.delete(deviceId);
  }

  function begin(deviceId: string, question: string, parcel: Uint8Array): void {
    end(deviceId);
    const now = clock.mono();
    for (const [device, { untilMs }] of begun) {
      if (untilMs > now && begunBytes + parcel.length <= fleetLimits.parcelsBytesMax) break;
      end(device);
    }
    begun.set(deviceId, { question, parcel, untilMs: now + fleetLimits.parcelKeptMs });
    begunBytes += parcel.length;
  }

  return {
    async of(deviceId, target, { offset, length }) {
      const { held, namespaces } = target;
      const question = sha256Hex(canonicalJson({ held: { ...held }, namespaces: { ...namespaces } }));
      if (offset > 0) {
        const one = begun.get(deviceId);
        return one?.question === question && one.untilMs > clock.mono() ? one.parcel : null;
      }
      const { files, behind, behindNamespaces } = await store.tx((db) => {
        const choice = chooseFiles(rolesIn(db, Object.keys(namespaces)), target);
        return { ...choice, files: bytesIn(db, choice.names) };
      });
      if (behind.length + behindNamespaces.length > 0) {
        for (const listener of listeners) listener(deviceId, [...behind, ...behindNamespaces]);
      }
      const parcel = await cached({ files, behind, behindNamespaces });
      // One frame that holds it all comes whole or not at all; anything else may be asked for in parts.
      if (parcel.length > Math.min(length, limits.bulkFramePayloadBytes)) begin(deviceId, question, parcel);
      else end(deviceId);
      return parcel;
    },
    onBehind(listener) {
      listeners.add(listener);
    },
  };
}
