// Why: the public conformance suite and public repositories use more of TUF than the house does: ECDSA and RSA
// keys, key ids of any name (TAP 12), SHA-512, roots without consistent snapshots.
// Trusts: nothing. Must never: judge what a device installs; only `lepton-agent tuf` uses it.

import { sha256Hex } from '../../../shared/crypto/digests.ts';
import { readForeignKey, sha512Hex, verifyForeign } from '../../../shared/crypto/foreign.ts';
import { ok } from '../../../shared/kernel/result.ts';
import { type ListedTargets, readRoot, readTargets } from '../../../shared/trust/tuf/format.ts';
import { houseFormat } from '../../../shared/trust/tuf/metadata.ts';
import type { FormatRules, TufPolicy } from '../../../shared/trust/tuf/policy.ts';
import { catalogueRoles } from '../../../shared/trust/tuf/repository.ts';
import { verifyHouseKey } from '../../../shared/trust/tuf/signatures.ts';

const openFormat: FormatRules = {
  keyIds: 'any',
  consistentSnapshots: 'optional',
  digests: new Map([
    ['sha256', sha256Hex],
    ['sha512', sha512Hex],
  ]),
  readKey(key) {
    if (key.keyType === 'ed25519') return houseFormat.readKey(key);
    return key.public === null ? null : readForeignKey(key.keyType, key.scheme, key.public);
  },
};

export const openPolicy: TufPolicy<ListedTargets> = {
  ...openFormat,
  verify(key, message, signature) {
    const { scheme, publicKey } = key;
    if (scheme === undefined) return verifyHouseKey(key, message, signature);
    return verifyForeign({ scheme, publicKey }, message, signature);
  },
  parseRoot(bytes) {
    const read = readRoot(openFormat, bytes, catalogueRoles);
    return read.ok ? ok(read.value.root) : read;
  },
  parseTargets(bytes) {
    const read = readTargets(openFormat, bytes);
    return read.ok ? ok(read.value.targets) : read;
  },
  checkTopTargets: () => ok(),
};
