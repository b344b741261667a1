// Why: what the tests of the gate and of the record share: the whole API over a registry in memory, and a request for each route
// that reaches its handler. Trusts: test/fleet/world.ts. Must never: answer in the place of a route.

import { join } from 'node:path';
import { createApi } from '../../registry/api/app.ts';
import { type RouteRow, routeTable } from '../../registry/api/route-table.ts';
import type { Backups } from '../../registry/backup/backups.ts';
import { createRegions, type Regions } from '../../registry/regions/regions.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import type { Problem, Role } from '../../shared/wire/http.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { rolloutFile, type World } from '../fleet/world.ts';

export const release = 'acme/digits@1.0.0';

export interface Asking {
  token(role: Role, namespace?: string | null): Promise<string>;
  fetch(method: string, path: string, options?: { token?: string | null; body?: object }): Promise<Response>;
  /** Status and problem code; null where it was no refusal. */
  outcome(...asked: Parameters<Asking['fetch']>): Promise<{ status: number; code: string | null }>;
}

/** A region that reaches no other; it is not started. */
const aloneIn = (world: World): Regions =>
  createRegions(world.core, {
    line: { ask: async () => refuse('region-unreachable', 'there is no line') },
    door: { url: () => 'https://127.0.0.1:9', publicKey: '0'.repeat(64) },
    policies: world.core.policies,
    outgoing: [],
    incoming: [],
    disk: openDisk(join(world.folder, 'mirror')),
    overrides: new Map(),
    judge: async () => ok(),
    onDenied: async () => undefined,
  });

/** Another one is under way for ever. */
const busyBackups: Backups = {
  start: async () => refuse('conflict', 'one is under way'),
  status: async (id) => refuse('not-found', `there is no backup ${id}`),
  list: async () => [],
  tidyKeys: async () => undefined,
  idle: async () => undefined,
};

export function openAsking(world: World): Asking {
  const api = createApi({ ...apiParts(world), backups: busyBackups, regions: aloneIn(world) }, () => true);
  const asking: Asking = {
    token: async (role, namespace = null) =>
      (await world.core.access.create({ user: `${role}-user`, role, namespace, ttlMs: null })).token,
    async fetch(method, path, { token = null, body } = {}) {
      const headers = new Headers(token === null ? {} : { authorization: `Bearer ${token}` });
      if (body !== undefined) headers.set('content-type', 'application/json');
      const content = body === undefined ? {} : { body: JSON.stringify(body) };
      return api.fetch(new Request(`http://localhost${path}`, { method, headers, ...content }));
    },
    async outcome(...asked) {
      const answer = await asking.fetch(...asked);
      const problem = answer.headers.get('content-type') === 'application/problem+json';
      const code = problem ? ((await answer.json()) as Problem).code : null;
      if (!problem) await answer.body?.cancel();
      return { status: answer.status, code };
    },
  };
  return asking;
}

/** Stored things that routes about stored things need. */
export interface Stored {
  rolloutId: string;
  sampleId: string;
}

/** A release, a rollout of it and a sample, all of namespace acme. */
export async function storeThings(world: World): Promise<Stored> {
  await world.push(release, 1);
  const rolloutId = await world.start(
    rolloutFile('r', { release, selector: { matchLabels: { site: 'nowhere' } } }),
  );
  const { qb } = world.store;
  await world.store.tx((db) =>
    db.run(
      qb.insertInto('samples').values({
        ...{ batch_id: 1, record_index: 0, device_id: 'd'.repeat(32), model: 'acme/digits', release },
        ...{ time_ms: 0, reasons: '[]', state: 'waiting', label: null, comment: null },
        ...{ reviewer: null, reviewed_at_ms: null },
      }),
    ),
  );
  return { rolloutId, sampleId: '1.0' };
}

const sha256 = 'a'.repeat(64);
const file = rolloutFile('other', { release, selector: { matchLabels: { site: 'nowhere' } } });

const envelope = { payloadType: 'x', payload: 'e30=', signatures: [{ keyid: sha256, sig: 'AA==' }] };
/** Bodies that pass their schemas, so that the handler is reached; by verb. */
const bodies: Record<string, object> = {
  'tokens.create': { user: 'x', role: 'viewer', namespace: 'acme' },
  'publishers.put': { keys: [sha256], threshold: 1 },
  'publishers.step': { metadata: 'e30=' },
  'releases.push': { releaseId: release, metadata: 'e30=', manifest: 'e30=' },
  'authorities.retire': { force: false },
  'broker.certify': { csr: 'no request', hosts: ['localhost'] },
  'claims.create': {},
  'devices.label': { labels: { line: 'x' } },
  'devices.revoke': {},
  'devices.release': {},
  'groups.put': { selector: { matchLabels: { site: 'a' } } },
  'keys.plan': {},
  'keys.install': { bundle: {} },
  'rollouts.start': { file },
  'rollouts.plan': { file },
  'rollouts.abort': {},
  'rollouts.pause': {},
  'rollouts.resume': {},
  'rollouts.approve': {},
  'rollouts.retry': {},
  'telemetry.erase': {},
  'policy.put': { envelope },
  'moves.apply': { envelope },
  'moves.sign': { order: 'e30=' },
  'telemetry.erase.labelled': { labels: { subject: 'nobody' } },
  'backups.create': {},
  'restored.confirm': {},
  'masking.set': { rules: [] },
  'labels.import': { labels: [] },
  'samples.rules.set': { rules: null },
  'samples.review': { decision: 'reject' },
  'regions.invite': { region: 'other' },
  'webhooks.add': { url: 'https://127.0.0.1:9/' },
};

/** A request for the route about what is stored in namespace acme. */
export function requestFor(
  row: RouteRow,
  { rolloutId, sampleId }: Stored,
  namespace = 'acme',
): { path: string; body?: object } {
  const values: Record<string, string> = { namespace, name: 'digits', sha256, id: 'none' };
  if (row.path.includes('/rollouts/')) values.id = rolloutId;
  if (row.path.includes('/samples/')) values.id = encodeURIComponent(sampleId);
  if (row.path.includes('/devices/')) values.id = 'e'.repeat(32);
  if (row.path.includes('/metadata/')) values.name = '1.root.json';
  const path = row.path.replace(/\{(\w+)\}/g, (_found, name: string) => values[name] ?? 'none');
  const query = row.verb === 'samples.list' ? '?model=acme/digits' : '';
  const body = bodies[row.verb];
  return { path: path + query, ...(body === undefined ? {} : { body }) };
}

/** Rows that others have bodies for, so that a new route is not forgotten here. */
export const rowsWithoutBody = (): string[] =>
  routeTable
    .filter(({ method, verb }) => ['POST', 'PUT', 'PATCH'].includes(method) && bodies[verb] === undefined)
    .map(({ verb }) => verb);
