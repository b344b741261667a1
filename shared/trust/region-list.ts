// Why: which regions there are, under the keys that the catalogue's root names for the snapshot: whoever holds those is home.
// Trusts: the catalogue root it is given. Must never: let a name get another key, or an older list replace a newer one.

import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../wire/messages.ts';
import { type RegionList, regionListSchema } from '../wire/regions.ts';
import { readSignedBody } from './signed-body.ts';
import type { RootFile } from './tuf/format.ts';

export function signRegionList(list: RegionList, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.regionList, encodeMessage(list), [signer]);
}

/** What a list says that the home of this root signed. Refusals: `envelope-malformed`, `region-list-invalid`. */
export function openRegionList(envelope: Envelope, root: Pick<RootFile, 'roles'>): Result<RegionList> {
  const { keys, threshold } = root.roles.get('snapshot') ?? { keys: [], threshold: 1 };
  const opened = openEnvelope(
    envelope,
    payloadTypes.regionList,
    keys.map((key) => key.publicKey),
    threshold,
    'region-list-invalid',
  );
  if (!opened.ok) return opened;
  return readSignedBody(regionListSchema, opened.value, 'region-list-invalid');
}

/**
 * Whether the next list may follow the one that is held. `sameHome`: the keys that signed the held one are still those
 * of the root in force; where they are not, another region took over and its numbers begin where it stood.
 * Refusals: `region-list-invalid`, `region-list-old`, `region-key-changed`.
 */
export function followRegionList(
  held: RegionList | null,
  next: RegionList,
  sameHome: boolean,
): Result<RegionList> {
  if (new Set(next.regions.map(({ region }) => region)).size !== next.regions.length)
    return refuse('region-list-invalid', 'it names a region twice');
  if (held === null) return ok(next);
  if (sameHome && next.version < held.version)
    return refuse('region-list-old', `version ${next.version}, held is ${held.version}`);
  // Under whichever key: the list does not say any more which one it had.
  const again = next.regions.find(({ region }) => held.removed.includes(region));
  if (again !== undefined)
    return refuse('region-key-changed', `region ${again.region} was taken out; nobody gets its name again`);
  for (const before of held.regions) {
    const after = next.regions.find(({ region }) => region === before.region);
    if (after !== undefined && after.publicKey !== before.publicKey)
      return refuse('region-key-changed', `the list names another key for region ${before.region}`);
  }
  return ok(next);
}
