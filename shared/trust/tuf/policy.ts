// Why: one client core serves the house and the public conformance suite; what differs stands in one object
// that the caller gives. Trusts: nothing. Must never: hold a rule that no policy may loosen; those are code.

import type { Result } from '../../kernel/result.ts';
import type { DelegatedRole, MetadataHead, RoleKey, RootFile } from './format.ts';

/** A key as metadata spells it (TUF 1.0.34 §4.2.1). */
export interface WireKey {
  keyType: string;
  scheme: string;
  /** `keyval.public`; null where this kind of key has none. */
  public: string | null;
}

export type DigestName = 'sha256' | 'sha512';

/** How metadata files are read, before anything is verified. */
export interface FormatRules {
  /**
   * `recomputed`: every id in a `keys` map is the SHA-256 of its key's canonical JSON, or the file is refused.
   * `any`: ids are unique names and nothing else (TAP 12).
   */
  keyIds: 'recomputed' | 'any';
  /** Whether roots without consistent snapshots (§6.2) are read too. */
  consistentSnapshots: 'required' | 'optional';
  /** Digests that count. A listing with `hashes` must hold one of them, and each that it holds must be right. */
  digests: ReadonlyMap<DigestName, (bytes: Uint8Array) => string>;
  /** The key, or null for one of an algorithm that does not count here. */
  readKey(key: WireKey): Pick<RoleKey, 'publicKey' | 'scheme'> | null;
}

export type VerifySignature = (key: RoleKey, message: Uint8Array, signature: Uint8Array) => boolean;

/** The least that the core needs to know of a targets file. */
export interface AnyTargets extends MetadataHead {
  delegations: readonly DelegatedRole[];
}

export interface TufPolicy<T extends AnyTargets> extends FormatRules {
  verify: VerifySignature;
  parseRoot(bytes: Uint8Array): Result<RootFile>;
  /** A top-level or delegated targets file. */
  parseTargets(bytes: Uint8Array): Result<T>;
  /** What top-level targets must keep to beyond TUF. Asked only after their signatures were checked. */
  checkTopTargets(targets: T): Result<void>;
}
