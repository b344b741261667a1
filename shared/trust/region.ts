// Why: a region's own root names the online keys for its director, its time, acknowledgements and commands.
// Trusts: the root pinned at enrolment, and each successor only when both it and its predecessor signed.
// Must never: take a catalogue root, or another region's, for this region's root.

import type { Signer } from '../crypto/ed25519.ts';
import { FleetError } from '../kernel/errors.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { parseRoot, type RoleKeys, type RootMetadata } from './tuf/metadata.ts';
import { makeRootFile, type RoleSpec } from './tuf/repository.ts';
import { checkThreshold } from './tuf/signatures.ts';

export const regionRoles = ['root', 'director', 'time', 'ack', 'command'] as const;
export type RegionRole = (typeof regionRoles)[number];

export interface RegionRoot {
  /** The exact bytes of the file. */
  bytes: Uint8Array;
  region: string;
  version: number;
  expiresAtMs: number;
  roles: Readonly<Record<RegionRole, RoleKeys>>;
}

/** The exact bytes of a signed region root. Throws `input-invalid` for keys or thresholds that cannot work. */
export function makeRegionRoot(parts: {
  region: string;
  version: number;
  expiresAtMs: number;
  roles: Readonly<Record<RegionRole, RoleSpec>>;
  holders?: ReadonlyMap<string, string>;
  signers: readonly Signer[];
}): Uint8Array {
  return makeRootFile({ ...parts, region: parts.region });
}

/**
 * Reads a region root and checks that its own root keys signed it. Whether it is the right one is for the
 * caller: its digest against the claim, or `updateRegionRoot`. Refusals: `metadata-malformed`,
 * `metadata-too-large`, `metadata-signature-invalid`.
 */
export function parseRegionRoot(bytes: Uint8Array): Result<RegionRoot> {
  const read = readRegionRoot(bytes);
  if (!read.ok) return read;
  const signed = checkThreshold(read.value.metadata, read.value.root.roles.root, 'region root');
  return signed.ok ? ok(read.value.root) : signed;
}

/**
 * The successor of a region root, under the rules of TUF 1.0.34 §5.3.4 and §5.3.5. Refusals: as above, and
 * `metadata-version-invalid`; `assignment-other-region` where it names another region.
 */
export function updateRegionRoot(currentBytes: Uint8Array, nextBytes: Uint8Array): Result<RegionRoot> {
  const current = parseRegionRoot(currentBytes);
  if (!current.ok) return current;
  const next = readRegionRoot(nextBytes);
  if (!next.ok) return next;
  const { metadata, root } = next.value;
  const byOld = checkThreshold(metadata, current.value.roles.root, 'region root, by the keys before');
  if (!byOld.ok) return byOld;
  const byNew = checkThreshold(metadata, root.roles.root, 'region root, by its own keys');
  if (!byNew.ok) return byNew;
  if (root.region !== current.value.region) {
    return refuse('assignment-other-region', 'the next region root is of another region');
  }
  if (root.version !== current.value.version + 1) {
    return refuse('metadata-version-invalid', `region root ${root.version} after ${current.value.version}`);
  }
  return ok(root);
}

function readRegionRoot(bytes: Uint8Array): Result<{ metadata: RootMetadata; root: RegionRoot }> {
  const parsed = parseRoot(bytes, regionRoles);
  if (!parsed.ok) return parsed;
  const metadata = parsed.value;
  if (metadata.region === null) return refuse('metadata-malformed', 'a root, but not of a region');
  const keysOf = (role: RegionRole): RoleKeys => {
    const keys = metadata.roles.get(role);
    if (keys === undefined) throw new FleetError('internal', 'parseRoot let a root without its roles pass');
    return keys;
  };
  const root: RegionRoot = {
    bytes,
    region: metadata.region,
    version: metadata.version,
    expiresAtMs: metadata.expiresAtMs,
    roles: {
      root: keysOf('root'),
      director: keysOf('director'),
      time: keysOf('time'),
      ack: keysOf('ack'),
      command: keysOf('command'),
    },
  };
  return ok({ metadata, root });
}
