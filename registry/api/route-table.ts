// Why: the one table of routes: which right each needs, where its namespace stands, what the audit record calls it. The gate,
// the record and docs/access.md all read it. Trusts: nothing. Must never: leave a route out: createApi refuses to begin then.

import type { Action } from '../policy/access.ts';

/** Where the namespace of what is changed stands; a token that is bound to another one is refused. */
export type RouteScope =
  /** In the path, as `{namespace}`. */
  | 'path'
  /** In the body, or in what is stored: the route asks once it knows. */
  | 'content'
  /** It concerns the whole fleet: no bound token. */
  | 'fleet'
  /** Whatever the token is bound to. */
  | 'any';

export interface RouteRow {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** As in the OpenAPI document. HEAD is asked as GET. */
  path: string;
  /** One of them is enough; `public`: no token is needed. */
  actions: readonly Action[] | 'public';
  scope: RouteScope;
  /** A dotted verb; what an audit entry calls it. */
  verb: string;
  /** A read that is audited: who saw raw records, samples or all of something. */
  audited: boolean;
  /** Query parameters that stand in the entry; none of them may ever be a secret. */
  filter: readonly string[];
}

type Options = Partial<Pick<RouteRow, 'audited' | 'filter'>>;

const row =
  (method: RouteRow['method']) =>
  (
    path: string,
    verb: string,
    actions: Action | readonly Action[] | 'public',
    scope: RouteScope,
    options: Options = {},
  ): RouteRow => ({
    method,
    path: `/api/v1/${path}`,
    verb,
    actions: actions === 'public' ? actions : typeof actions === 'string' ? [actions] : actions,
    scope,
    audited: options.audited ?? method !== 'GET',
    filter: options.filter ?? [],
  });

const get = row('GET');
const post = row('POST');
const put = row('PUT');
const patch = row('PATCH');
const remove = row('DELETE');

const model = 'models/{namespace}/{name}';

export const routeTable: readonly RouteRow[] = [
  get('openapi.json', 'api.document', 'public', 'any'),

  // Tokens and publishers
  post('tokens', 'tokens.create', 'tokens.write', 'content'),
  get('tokens', 'tokens.list', 'tokens.write', 'fleet'),
  remove('tokens/{id}', 'tokens.revoke', 'tokens.write', 'fleet'),
  put('publishers/{namespace}', 'publishers.put', ['publishers.claim', 'publishers.write'], 'path'),
  get('publishers', 'publishers.list', 'catalogue.read', 'any'),
  get('publishers/{namespace}', 'publishers.show', 'catalogue.read', 'any'),
  get('publishers/{namespace}/pending', 'publishers.pending', 'catalogue.read', 'any'),
  post('publishers/{namespace}/metadata', 'publishers.step', 'catalogue.push', 'path'),

  // Catalogue
  put('blobs/{sha256}', 'blobs.put', 'catalogue.push', 'any'),
  get('blobs/{sha256}', 'blobs.get', 'catalogue.read', 'any'),
  get('metadata/{name}', 'metadata.get', 'catalogue.read', 'any'),
  post('releases', 'releases.push', 'catalogue.push', 'content'),
  get('models', 'models.list', 'catalogue.read', 'any'),
  get(model, 'models.show', 'catalogue.read', 'any'),
  get('registry', 'registry.show', 'catalogue.read', 'any'),

  // Authorities and the broker
  get('authorities', 'authorities.list', 'fleet.read', 'any'),
  post('authorities', 'authorities.rotate', 'authorities.write', 'fleet'),
  post('authorities/{id}/retire', 'authorities.retire', 'authorities.write', 'fleet'),
  get('devices/revoked', 'devices.revoked', 'broker.read', 'fleet'),
  get('broker/files', 'broker.files', 'broker.read', 'fleet'),
  post('broker/certificate', 'broker.certify', 'authorities.write', 'fleet'),

  // Fleet
  post('claims', 'claims.create', 'claims.write', 'fleet'),
  get('devices', 'devices.list', 'fleet.read', 'any'),
  get('devices/{id}', 'devices.show', 'fleet.read', 'any'),
  patch('devices/{id}/labels', 'devices.label', 'devices.write', 'fleet'),
  post('devices/{id}/revoke', 'devices.revoke', 'devices.write', 'fleet'),
  post('devices/{id}/release', 'devices.release', 'devices.write', 'fleet'),
  get('moves', 'moves.list', 'fleet.read', 'any'),
  post('moves', 'moves.apply', 'devices.write', 'fleet'),
  post('moves/sign', 'moves.sign', 'keys.write', 'fleet'),
  get('events', 'events.list', 'fleet.read', 'any'),
  get('groups', 'groups.list', 'rollouts.read', 'any'),
  put('groups/{name}', 'groups.put', 'rollouts.write', 'fleet'),
  remove('groups/{name}', 'groups.remove', 'rollouts.write', 'fleet'),

  // Keys
  get('keys', 'keys.show', 'keys.read', 'fleet'),
  post('keys/plan', 'keys.plan', 'keys.write', 'fleet'),
  post('keys/install', 'keys.install', 'keys.write', 'fleet'),

  // Rollouts
  post('rollouts', 'rollouts.start', 'rollouts.write', 'content'),
  post('rollouts/plan', 'rollouts.plan', 'rollouts.write', 'content'),
  get('rollouts', 'rollouts.list', 'rollouts.read', 'any'),
  get('rollouts/{id}', 'rollouts.show', 'rollouts.read', 'any'),
  post('rollouts/{id}/abort', 'rollouts.abort', 'rollouts.write', 'content'),
  post('rollouts/{id}/pause', 'rollouts.pause', 'rollouts.write', 'content'),
  post('rollouts/{id}/resume', 'rollouts.resume', 'rollouts.write', 'content'),
  post('rollouts/{id}/approve', 'rollouts.approve', 'rollouts.approve', 'content'),
  post('rollouts/{id}/retry', 'rollouts.retry', 'rollouts.write', 'content'),
  get('rollouts/{id}/explanation', 'rollouts.explain', 'rollouts.read', 'any'),
  get('rollouts/{id}/history', 'rollouts.history', 'rollouts.read', 'any'),

  // Telemetry
  get('telemetry', 'telemetry.read', 'telemetry.read', 'fleet', {
    audited: true,
    filter: ['device', 'class', 'since', 'until', 'release', 'limit', 'cursor', 'to'],
  }),
  get('telemetry/counts', 'telemetry.counts', 'fleet.read', 'any'),
  get('telemetry/lost', 'telemetry.lost', 'fleet.read', 'any'),
  get('telemetry/erasures', 'telemetry.erasures', 'telemetry.read', 'fleet'),
  get('telemetry/erasures/regions', 'telemetry.erasures.regions', 'telemetry.read', 'fleet'),
  post('telemetry/erasures', 'telemetry.erase.labelled', 'telemetry.erase', 'fleet'),
  post('devices/{id}/telemetry/erasure', 'telemetry.erase', 'telemetry.erase', 'fleet'),
  get('rights/export', 'rights.export', 'rights.export', 'fleet', { audited: true, filter: ['device'] }),
  get('masking', 'masking.show', 'fleet.read', 'any'),
  put('masking', 'masking.set', 'masking.write', 'fleet'),
  get(`${model}/drift`, 'drift.show', 'telemetry.read', 'path'),
  get(`${model}/quality`, 'quality.show', 'telemetry.read', 'path'),
  get(`${model}/energy`, 'energy.show', 'telemetry.read', 'path'),
  post('labels', 'labels.import', 'labels.write', 'fleet'),

  // What regions tell of their devices, and of models
  get('cells', 'cells.list', 'cells.read', 'any'),
  get('cells/merged', 'cells.merged', 'cells.read', 'any'),
  get('reports/models', 'reports.models', 'cells.read', 'any'),

  // Samples
  get(`${model}/sample-rules`, 'samples.rules.show', 'fleet.read', 'any'),
  put(`${model}/sample-rules`, 'samples.rules.set', 'samples.write', 'path'),
  get('samples', 'samples.list', 'telemetry.read', 'content', {
    audited: true,
    filter: ['model', 'release', 'reason', 'state', 'cursor', 'limit'],
  }),
  get('samples/{id}', 'samples.show', 'telemetry.read', 'content', { audited: true }),
  post('samples/{id}/review', 'samples.review', 'samples.review', 'content'),
  get(`${model}/samples/dataset`, 'samples.export', 'telemetry.read', 'path', {
    audited: true,
    filter: ['release', 'cursor', 'limit'],
  }),

  // Other regions
  get('regions', 'regions.show', 'fleet.read', 'any'),
  post('regions/invitations', 'regions.invite', 'regions.write', 'fleet'),
  remove('regions/{region}', 'regions.remove', 'regions.write', 'fleet'),

  // Backups
  post('backups', 'backups.create', 'backups.write', 'fleet'),
  get('backups', 'backups.list', 'backups.write', 'fleet'),
  get('backups/{id}', 'backups.show', 'backups.write', 'fleet'),
  get('restored', 'restored.show', 'telemetry.read', 'fleet'),
  post('restored/erasures-confirmed', 'restored.confirm', 'telemetry.erase', 'fleet'),

  // The region's policy
  get('policy', 'policy.show', 'policy.read', 'fleet'),
  put('policy', 'policy.put', 'policy.write', 'fleet'),
  get('policy/history', 'policy.history', 'policy.read', 'fleet'),
  get('policy/decision', 'policy.decision', 'policy.read', 'fleet'),
  get('policy/retention', 'policy.retention', 'policy.read', 'fleet'),
  get('reports/residency', 'reports.residency', 'policy.read', 'fleet'),

  // Who is told, and who did what
  post('webhooks', 'webhooks.add', 'webhooks.write', 'fleet'),
  get('webhooks', 'webhooks.list', 'webhooks.write', 'fleet'),
  remove('webhooks/{id}', 'webhooks.remove', 'webhooks.write', 'fleet'),
  get('audit', 'audit.list', 'audit.read', 'fleet'),
  get('audit/export', 'audit.export', 'audit.read', 'fleet', { audited: true }),
];

export interface MatchedRoute {
  row: RouteRow;
  /** Of the path, decoded. */
  params: ReadonlyMap<string, string>;
}

/** Names of metadata files have slashes in them. */
const wide = 'metadata/{name}';

function patternOf({ path }: RouteRow): { pattern: RegExp; names: string[] } {
  const names: string[] = [];
  const source = path.replace(/[.]|\{(\w+)\}/g, (found, name: string | undefined) => {
    if (name === undefined) return `\\${found}`;
    names.push(name);
    return path.endsWith(wide) ? '(.+)' : '([^/]+)';
  });
  return { pattern: new RegExp(`^${source}$`), names };
}

const patterns = routeTable
  .map((one) => ({ row: one, ...patternOf(one) }))
  // `devices/revoked` is no device: fewer parameters first.
  .sort((a, b) => a.names.length - b.names.length);

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // Not what anybody named; the route refuses it.
    return text;
  }
}

/** The row of a request; null where there is no such route. */
export function routeOf(method: string, path: string): MatchedRoute | null {
  const wanted = method === 'HEAD' ? 'GET' : method;
  for (const { row: one, pattern, names } of patterns) {
    const values = one.method === wanted ? pattern.exec(path) : null;
    if (values !== null)
      return { row: one, params: new Map(names.map((name, at) => [name, decoded(values[at + 1] ?? '')])) };
  }
  return null;
}
