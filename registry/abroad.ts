// Why: this region among others, put together once for the registry on a machine and for the one in the simulator: what goes
// from region to region, what is noted of it, and what is done again and again.
// Trusts: each stream for what it offers and for how it checks what comes. Must never: be put together in two ways.

import type { Disk, RegionLine } from '../shared/kernel/ports.ts';
import type { RoleKeys } from '../shared/trust/tuf/metadata.ts';
import { incomingAuditHeads, outgoingAuditHeads } from './audit/peer-heads.ts';
import { createCellPublishing } from './cells/publishing.ts';
import { createCellsIncoming, createCellsOutgoing } from './cells/streams.ts';
import type { RegistryCore } from './core.ts';
import type { Fleet } from './fleet/fleet.ts';
import { repeat } from './open-core.ts';
import { erasurePeers } from './regions/erasure-peers.ts';
import type { RegionLimits } from './regions/limits.ts';
import type { OwnDoor } from './regions/members.ts';
import { createPeerRoots } from './regions/peer-roots.ts';
import { createRegionRollouts, type RegionRollouts } from './regions/region-rollouts.ts';
import { createRegions, type Regions, type RegionsParts } from './regions/regions.ts';
import type { IncomingStream, OutgoingStream } from './regions/streams.ts';
import type { Rollouts } from './rollout/rollouts.ts';
import type { RegistryDb } from './store/open.ts';

export interface AbroadParts {
  fleet: Pick<Fleet, 'events' | 'moves' | 'erasures'>;
  rollouts: Rollouts;
  line: RegionLine;
  door: OwnDoor;
  /** Rooted at the folder of half-fetched files. */
  disk: Disk;
  /** By region, where its door is reached from here. */
  overrides: ReadonlyMap<string, string>;
  limits: Partial<RegionLimits>;
}

export interface Abroad {
  regions: Regions;
  regionRollouts: RegionRollouts;
  start(): Promise<void>;
  /** What is asked at this moment is waited for: close the line as well. Idempotent. */
  stop(): Promise<void>;
}

/** Days of cells are due once a day; whether one is costs a query. */
const cellsEveryMs = 10 * 60_000;

/** Audit heads and cells: signed, of any region, and checked with any of its roots: keys change, and what they signed stays. */
function signedStreams(
  core: RegistryCore,
  { events }: Pick<Fleet, 'events'>,
): { outgoing: OutgoingStream[]; incoming: IncomingStream[] } {
  const { store, audit, clock } = core;
  const roots = createPeerRoots(store);
  const ackRolesOf = (db: RegistryDb, region: string): RoleKeys[] =>
    roots.rootsIn(db, region).map((root) => root.roles.ack);
  function regionKeyOf(region: string, db: RegistryDb): RoleKeys[] | null {
    const known = ackRolesOf(db, region);
    return known.length === 0 ? null : known;
  }
  return {
    outgoing: [outgoingAuditHeads(store), createCellsOutgoing(store)],
    incoming: [
      incomingAuditHeads({ store, audit, events, regionKeyOf, clock }),
      createCellsIncoming({ ...core, events, regionKeysOf: ackRolesOf }),
    ],
  };
}

/** What the policy refused to another region: an event, and an entry that names the rule; both within bounds. */
function noteDenied(
  { audit, region }: Pick<RegistryCore, 'audit' | 'region'>,
  { events }: Pick<Fleet, 'events'>,
): RegionsParts['onDenied'] {
  return async ({ region: asker, flow, rule, what }) => {
    await audit.appendRefusal(`region:${asker}:${flow}`, {
      ...{ actor: `region:${asker}`, via: 'region', action: 'flow.ask', subject: what, reason: null },
      ...{ outcome: 'refused', code: 'policy-denied', rule, address: null },
      detail: { class: flow, from: region },
    });
    const detail = `${what} (${flow}) for region ${asker}: rule ${rule}`;
    await events.recordStranger({ source: 'registry', subject: null, code: 'policy-denied', detail });
  };
}

function keepPublishingCells(core: RegistryCore): () => Promise<void> {
  const { clock, log, policies } = core;
  const signer = core.keyring.signer('ack');
  const publishing = createCellPublishing({ ...core, signer, devicesMin: () => policies.cellDevicesMin() });
  // After a restore the counts of an erased device may be here again: no day is closed before that is known.
  const work = async (): Promise<void> => {
    if (core.withholding.mayRead().ok) await publishing.closeDue();
  };
  return repeat({ clock, everyMs: cellsEveryMs, work, log });
}

export function createAbroad(core: RegistryCore, parts: AbroadParts): Abroad {
  const { fleet, rollouts, line, door, disk, overrides, limits } = parts;
  const regionRollouts = createRegionRollouts(core, {
    ...{ rollouts, events: fleet.events, audit: core.audit, limits },
    listIn: (db) => regions.members.listIn(db),
  });
  const signed = signedStreams(core, fleet);
  const erasures = fleet.erasures.exchange(erasurePeers(core.store, core.region));
  const regions: Regions = createRegions(core, {
    ...{ line, door, disk, overrides, limits, policies: core.policies },
    outgoing: [...signed.outgoing, ...erasures.outgoing, ...regionRollouts.outgoing, ...fleet.moves.outgoing],
    incoming: [...signed.incoming, ...erasures.incoming, ...regionRollouts.incoming, ...fleet.moves.incoming],
    judge: (releaseId, manifest) => core.releases.installable({ releaseId, manifest }),
    onDenied: noteDenied(core, fleet),
  });
  let publishing: (() => Promise<void>) | null = null;
  return {
    regions,
    regionRollouts,
    async start() {
      regionRollouts.start();
      await regions.start();
      publishing = keepPublishingCells(core);
    },
    async stop() {
      await Promise.all([publishing?.(), regionRollouts.stop(), regions.stop()]);
    },
  };
}
