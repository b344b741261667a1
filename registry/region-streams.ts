// Why: the one list of what goes from region to region, and where a refusal of it is noted, for the registry on a machine and
// for the one in the simulator. Trusts: each stream for what it offers and for how it checks what comes.
// Must never: be decided in two places.

import type { RoleKeys } from '../shared/trust/tuf/metadata.ts';
import { incomingAuditHeads, outgoingAuditHeads } from './audit/peer-heads.ts';
import { createCellPublishing } from './cells/publishing.ts';
import { createCellsIncoming, createCellsOutgoing } from './cells/streams.ts';
import type { RegistryCore } from './core.ts';
import type { FleetEvents } from './fleet/events.ts';
import { repeat } from './open-core.ts';
import { createPeerRoots } from './regions/peer-roots.ts';
import type { RegionsParts } from './regions/regions.ts';
import type { IncomingStream, OutgoingStream } from './regions/streams.ts';
import type { RegistryDb } from './store/open.ts';

export function regionStreams(
  core: RegistryCore,
  { events }: { events: FleetEvents },
): { outgoing: OutgoingStream[]; incoming: IncomingStream[] } {
  const { store, audit, clock } = core;
  const roots = createPeerRoots(store);
  /** Any root of a region counts: keys change, and what they signed stays. */
  function ackRolesOf(region: string, db: RegistryDb): RoleKeys[] | null {
    const known = roots.rootsIn(db, region).map((root) => root.roles.ack);
    return known.length === 0 ? null : known;
  }
  return {
    outgoing: [outgoingAuditHeads(store), createCellsOutgoing(store)],
    incoming: [
      incomingAuditHeads({ store, audit, events, regionKeyOf: ackRolesOf, clock }),
      createCellsIncoming({ ...core, events, regionKeysOf: (db, region) => ackRolesOf(region, db) ?? [] }),
    ],
  };
}

/** What the policy refused to another region: an event, and an entry that names the rule; both within bounds. */
export function noteFlowDenied(
  { audit, region }: Pick<RegistryCore, 'audit' | 'region'>,
  { events }: { events: Pick<FleetEvents, 'recordStranger'> },
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

/** Days of cells are due once a day; whether one is costs a query. */
const cellsEveryMs = 10 * 60_000;

/** Until what it gives is called. */
export function keepPublishingCells(core: RegistryCore): () => Promise<void> {
  const { clock, log, policies } = core;
  const signer = core.keyring.signer('ack');
  const publishing = createCellPublishing({ ...core, signer, devicesMin: () => policies.cellDevicesMin() });
  return repeat({ clock, everyMs: cellsEveryMs, work: publishing.closeDue, log });
}
