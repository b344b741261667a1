// Why: what a route sees: the registry's parts, who asks, and how an answer or a refusal is written.
// Trusts: app.ts, which checked the token before a route runs. Must never: let a route skip `authorize`.
//
// How the rooms meet (registry.ts does it, in this order):
//   core   = store, keyring, repository, blobs, releases, access
//   fleet  = createFleet(core)            registry/fleet/fleet.ts
//   rollouts = createRollouts(core, fleet) registry/rollout/rollouts.ts
//   broker = startBroker({ mayConnect: fleet.mayConnect, onRefused: fleet.onRefused, onConnected, onDisconnected })
//   await fleet.start(bus); await rollouts.start(); then HTTP; stop in the opposite order.

import type { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { FleetError, invariant, unwrap } from '../../shared/kernel/errors.ts';
import type { RegistryBus } from '../../shared/kernel/ports.ts';
import { problemSchema } from '../../shared/wire/http.ts';
import type { NewAuditEntry } from '../audit/audit.ts';
import type { Backups } from '../backup/backups.ts';
import type { RegistryCore } from '../core.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Webhooks } from '../outlets/webhooks.ts';
import { type Action, authorize, type Principal } from '../policy/access.ts';
import type { RegionRollouts } from '../regions/region-rollouts.ts';
import type { Regions } from '../regions/regions.ts';
import type { Rollouts } from '../rollout/rollouts.ts';
import type { MatchedRoute } from './route-table.ts';

export type { Blobs } from '../catalog/blobs.ts';
export type { ReleaseRecord, Releases } from '../catalog/releases.ts';
export type { RegistryCore } from '../core.ts';
export type { KeyRole, Keyring } from '../signing/keys.ts';
export type { CatalogueRepository } from '../signing/repository.ts';

/** Everything a route may use. */
export interface RegistryParts extends RegistryCore {
  bus: RegistryBus;
  fleet: Fleet;
  rollouts: Rollouts;
  webhooks: Webhooks;
  /** Absent where there is no disk to write them to. */
  backups?: Backups;
  /** Other regions; null in a world that has none. */
  regions?: Regions | null;
  /** Rollouts that go through several regions; as `regions`. */
  regionRollouts?: RegionRollouts | null;
  /** Whether a broker of another maker is there; absent or null where the broker is ours. */
  brokerConnected?: (() => boolean) | null;
}

/** What a route adds to the audit entry of its request. */
export interface AuditFacts {
  /** In the place of the path's parameters. */
  subject: string | null;
  /** Of the policy that decided. */
  rule: string | null;
  detail: NewAuditEntry['detail'];
}

/** Hono's variables: who asks, null where no token was given (only public routes see that). */
export interface ApiEnv {
  Variables: {
    principal: Principal | null;
    requestId: string;
    /** Null where there is no such route. */
    route: MatchedRoute | null;
    /** Of what `audit.begin` noted; null where nothing is to be changed, or it was refused before. */
    auditOpen: number | null;
    audited: AuditFacts;
  };
}

export type Api = OpenAPIHono<ApiEnv>;

/** Says more of what the request was about: what it made, how many records it showed. Never content. */
export function noteAudited(c: Context<ApiEnv>, facts: Partial<AuditFacts>): void {
  const { subject, rule, detail } = c.get('audited');
  c.set('audited', {
    subject: facts.subject ?? subject,
    rule: facts.rule ?? rule,
    detail: { ...detail, ...facts.detail },
  });
}

/**
 * Who asks, if this principal may do that. Throws `token-missing`, `role-forbidden` or
 * `namespace-forbidden`. Every route but the public ones calls it, with a right that its row in route-table.ts
 * names: the gate has checked the role by then, and this checks the namespace. A thrown FleetError
 * becomes a problem document; use `unwrap(result)` to answer with a refusal.
 */
export function requireAccess(
  c: Context<ApiEnv>,
  action: Action,
  namespace: string | null = null,
): Principal {
  const principal = c.get('principal');
  if (principal === null) throw new FleetError('token-missing', 'this needs a token');
  const actions = c.get('route')?.row.actions ?? [];
  invariant(
    actions !== 'public' && actions.includes(action),
    `${c.req.method} ${c.req.routePath} asks for ${action}, which its row in route-table.ts does not name`,
  );
  unwrap(authorize(principal, action, namespace));
  return principal;
}

/** Who asks, whatever the role: for routes that decide by what is stored. Throws `token-missing`. */
export function requirePrincipal(c: Context<ApiEnv>): Principal {
  const principal = c.get('principal');
  if (principal === null) throw new FleetError('token-missing', 'this needs a token');
  return principal;
}

/** The `default` entry of a route's `responses`: every refusal is an RFC 9457 problem document. */
export const problemResponse = {
  description: 'Refused or failed; `code` says why, `hint` what to do.',
  content: { 'application/problem+json': { schema: problemSchema } },
} as const;
