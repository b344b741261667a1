// Why: the first start of a region that joins others: it shows its invitation to the home region, and takes the catalogue
// from the root that the invitation names, before anything is opened.
// Trusts: the invitation, carried by hand: the home's key and the root's digest. Must never: begin with a catalogue of its
// own, or store half of a joining.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError, refusalError, unwrap } from '../../shared/kernel/errors.ts';
import type { Clock, Log, RegionLine } from '../../shared/kernel/ports.ts';
import { parseRootFile } from '../../shared/trust/tuf/repository.ts';
import type { Invitation } from '../../shared/wire/regions.ts';
import type { RoleFiles } from '../signing/role-files.ts';
import type { RegistryStore } from '../store/open.ts';
import type { Settings } from '../store/settings.ts';
import { createAsker } from './asking.ts';
import { type RegionLimits, regionLimits } from './limits.ts';
import { readList, saveListIn } from './members.ts';
import { refreshWhole } from './mirror.ts';
import { writeMirrorIn } from './mirror-state.ts';

export interface Joining {
  invitation: Invitation;
  /** Where the home region is reached, where that differs from what the invitation says. */
  homeUrl: string | null;
  line: RegionLine;
  /** Under which others reach this region. */
  ownUrl: string;
  limits?: RegionLimits;
}

/** Opens what a joining needs; called only where there is one to be done. */
export type BeginJoining = (settings: Settings) => Promise<Joining>;

/**
 * Joins, once; afterwards it changes nothing, and the door is not asked for. Faults: `conflict` (it has a catalogue of
 * its own), `region-unreachable`, `region-untrusted`, `invitation-invalid`,
 * `metadata-…`, `config-invalid` (the invitation is for another region).
 */
export async function joinRegions(
  begin: BeginJoining,
  parts: {
    store: RegistryStore;
    files: RoleFiles;
    region: string;
    clock: Clock;
    log: Log;
    settings: Settings;
  },
): Promise<void> {
  const { store, files, region, clock, log } = parts;
  const before = await store.tx((db) => ({
    hasCatalogue: files.current(db, 'root') !== null,
    hasRegions: files.hasRegions(db),
  }));
  if (before.hasRegions) return;
  if (before.hasCatalogue) {
    throw new FleetError('conflict', 'this registry has a catalogue of its own, and cannot join another', {
      hint: 'a region joins at its first start: give an empty --data folder',
    });
  }
  const { invitation, ...own } = await begin(parts.settings);
  if (invitation.region !== region) {
    throw new FleetError('config-invalid', `the invitation is for region ${invitation.region}`, {
      hint: `give --region ${invitation.region}, or the invitation for ${region}`,
    });
  }
  const regionRoot = await store.tx((db) => {
    files.createRegionRoot(db, clock.wall());
    return files.expect(db, 'region/root').bytes;
  });
  const { home } = invitation;
  const asker = createAsker({
    line: own.line,
    peer: { url: own.homeUrl ?? home.url, publicKey: home.publicKey },
    limits: own.limits ?? regionLimits,
  });
  const answer = await asker.join({
    schemaVersion: 1,
    region,
    secret: invitation.secret,
    url: own.ownUrl,
    regionRoot: Buffer.from(regionRoot).toString('base64'),
  });
  if (!answer.ok) throw refusalError(answer.refusal);
  const { list, roots } = answer.value;
  const pinned = roots.find((root) => sha256Hex(root) === invitation.catalogueRootSha256);
  if (pinned === undefined)
    throw new FleetError('region-untrusted', 'the home region does not have the root of the invitation');
  const refreshed = await refreshWhole(
    { root: pinned, timestamp: null, snapshot: null, targets: null, delegated: {} },
    asker,
    clock.wall(),
  );
  if (!refreshed.ok) throw refusalError(refreshed.refusal);
  const read = unwrap(readList(list, refreshed.value.root));
  // Older roots too: a device of an earlier claim walks them one by one.
  const { version } = unwrap(parseRootFile(pinned));
  const known = roots.slice(0, roots.indexOf(pinned) + 1);
  await store.tx((db) => {
    writeMirrorIn(
      db,
      store.qb,
      files,
      { ...refreshed.value, roots: [...known, ...refreshed.value.roots] },
      clock.wall(),
    );
    saveListIn(db, store.qb, read, list, clock.wall());
  });
  log.emit('info', 'regions.joined', { home: read.home, regions: read.regions.length, rootVersion: version });
}
