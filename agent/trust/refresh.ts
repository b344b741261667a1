// Why: a refresh in one round trip: what the device holds goes out, what it lacks comes back in one parcel, and
// the TUF client takes each file from there as if it had fetched it. Trusts: nothing in a parcel.
// Must never: let a parcel decide anything: a registry that has none is asked for one file after the other.

import type { Deflate, FetchTarget, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { MetadataFetcher, TrustState } from '../../shared/trust/tuf/client.ts';
import { noBounds } from '../../shared/trust/tuf/floors.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { parseSnapshot, parseTargets, parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import { followTimestamp, trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import type { HeldVersions } from '../../shared/wire/messages.ts';
import {
  type Parcel,
  parcelHeaderBytes,
  parcelPlainBytesMax,
  readParcelHeader,
  unpackParcel,
} from '../../shared/wire/refresh.ts';

/** What is verified and held: the catalogue, and the region's root. */
export interface HeldFiles {
  catalogue: TrustState;
  regionRoot: Uint8Array;
}

/** A whole file of this target. Refusals: the Fetcher's, `metadata-missing`, `metadata-too-large`. */
export type FetchWhole = (target: FetchTarget, bytesMax: number) => Promise<Result<Uint8Array>>;

/** Names of held files (`heldMessageSchema`) that the registry says are newer than its own. */
export interface MetadataSource extends MetadataFetcher {
  behind(): string[];
}

export interface MetadataSources {
  /** For one refresh; asks at the first file. */
  open(held: HeldFiles, namespaces: readonly string[]): MetadataSource;
  /** Another registry may be behind the next connection. */
  connected(): void;
}

const versionCache = new WeakMap<Uint8Array, number>();

/** 0 where there is none. Verified bytes never change, so each is read once. */
function versionOf(
  bytes: Uint8Array | null,
  parse: (bytes: Uint8Array) => Result<{ version: number }>,
): number {
  if (bytes === null) return 0;
  const known = versionCache.get(bytes);
  if (known !== undefined) return known;
  const parsed = parse(bytes);
  const version = parsed.ok ? parsed.value.version : 0;
  versionCache.set(bytes, version);
  return version;
}

export function heldVersions({ catalogue, regionRoot }: HeldFiles): HeldVersions {
  return {
    root: versionOf(catalogue.root, (bytes) => trustRoot(housePolicy, bytes)),
    regionRoot: versionOf(regionRoot, parseRegionRoot),
    timestamp: versionOf(catalogue.timestamp, parseTimestamp),
    snapshot: versionOf(catalogue.snapshot, parseSnapshot),
    targets: versionOf(catalogue.targets, parseTargets),
  };
}

function namespaceVersions(catalogue: TrustState, namespaces: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    namespaces.map((namespace) => {
      const held = Object.hasOwn(catalogue.delegated, namespace) ? catalogue.delegated[namespace] : null;
      return [namespace, versionOf(held ?? null, parseTargets)];
    }),
  );
}

/** The timestamp that is held, where the root that is held signed it; else it says nothing. */
function standingTimestamp({ root, timestamp }: TrustState): Uint8Array | null {
  const trusted = trustRoot(housePolicy, root);
  if (timestamp === null || !trusted.ok) return null;
  return followTimestamp(housePolicy, trusted.value, null, noBounds, timestamp).ok ? timestamp : null;
}

const rootName = /^([1-9]\d*)\.root\.json$/;
const anyRootName = /^(region\/)?([1-9]\d*)\.root\.json$/;
/** The registry does not know parcels. */
const unknownToIt: ReadonlySet<string> = new Set(['metadata-missing', 'fetch-invalid', 'fetch-denied']);

export function createMetadataSources(parts: {
  fetch: FetchWhole;
  deflate: Deflate;
  log: Log;
}): MetadataSources {
  const { fetch, deflate, log } = parts;
  let known = true;

  async function unpack(bytes: Uint8Array): Promise<Result<Parcel>> {
    const header = readParcelHeader(bytes);
    if (!header.ok) return header;
    const { deflated, plainBytes, body } = header.value;
    if (!deflated) return unpackParcel(body);
    const plain = await deflate.inflate(body, plainBytes);
    if (!plain.ok) return refuse('message-malformed', plain.refusal.detail);
    if (plain.value.length !== plainBytes) {
      return refuse('message-malformed', 'a parcel of another length than it says');
    }
    return unpackParcel(plain.value);
  }

  /** Null where files are to be fetched one by one. */
  async function ask(target: FetchTarget): Promise<Result<Parcel | null>> {
    if (!known) return ok(null);
    const bytes = await fetch(target, parcelPlainBytesMax + parcelHeaderBytes);
    if (!bytes.ok && !unknownToIt.has(bytes.refusal.code)) return bytes;
    const parcel = bytes.ok ? await unpack(bytes.value) : bytes;
    if (parcel.ok) return parcel;
    known = false;
    // Nothing is lost by a parcel that is none: what it should have held is fetched and verified all the same.
    log.emit(bytes.ok ? 'warn' : 'debug', 'trust.refused', { what: 'parcel', ...parcel.refusal });
    return ok(null);
  }

  return {
    connected: () => {
      known = true;
    },

    open: (held, namespaces) => {
      const { catalogue } = held;
      let asked: Promise<Result<Parcel | null>> | null = null;
      let parcel: Parcel | null = null;

      const single = (name: string, bytesMax: number): Promise<Result<Uint8Array>> =>
        fetch({ kind: 'metadata', name }, bytesMax);

      async function fetchFrom(name: string, bytesMax: number): Promise<Result<Uint8Array>> {
        asked ??= ask({
          kind: 'refresh',
          held: heldVersions(held),
          namespaces: namespaceVersions(catalogue, namespaces),
        });
        const answer = await asked;
        if (!answer.ok) return answer;
        parcel = answer.value;
        if (parcel === null) return single(name, bytesMax);
        const bytes = parcel.files.get(name);
        if (bytes !== undefined) {
          if (bytes.length > bytesMax) {
            return refuse('metadata-too-large', `${name} has ${bytes.length} bytes, limit ${bytesMax}`);
          }
          // A copy: a view would keep the whole parcel in memory for as long as the file is held.
          return ok(new Uint8Array(bytes));
        }
        // Which root comes next is what was asked: it is not there, so there is none.
        if (anyRootName.test(name)) return refuse('metadata-missing', `${name} is not there`);
        if (name === 'timestamp.json') {
          const moved = [...parcel.files.keys()].some((file) => rootName.test(file));
          // After a change of keys the version that is held may be higher than any to come (§5.3.11).
          const unchanged = moved ? null : standingTimestamp(catalogue);
          if (unchanged !== null) return ok(unchanged);
        }
        return single(name, bytesMax);
      }

      return {
        fetch: fetchFrom,
        behind: () => [
          ...(parcel?.behind ?? []).map((name) => (name === 'regionRoot' ? 'region-root' : name)),
          ...(parcel?.behindNamespaces ?? []).map((namespace) => `ns/${namespace}`),
        ],
      };
    },
  };
}

/** The bytes of a held file by the name of `behind`, or null. */
export function heldFile({ catalogue, regionRoot }: HeldFiles, name: string): Uint8Array | null {
  if (name === 'region-root') return regionRoot;
  if (name === 'root' || name === 'timestamp' || name === 'snapshot' || name === 'targets')
    return catalogue[name];
  const namespace = name.startsWith('ns/') ? name.slice(3) : '';
  return Object.hasOwn(catalogue.delegated, namespace) ? (catalogue.delegated[namespace] ?? null) : null;
}
