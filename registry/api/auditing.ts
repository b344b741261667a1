// Why: one place where every request is let in by its role and where what came of it is written down, so that no route can
// forget either. Trusts: route-table.ts for what a route needs; the connection for the address.
// Must never: let a change begin that could not be noted, or note a token, a body or an unknown query parameter.

import { getConnInfo } from '@hono/node-server/conninfo';
import type { Context } from 'hono';
import { codes, type ErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { NewAuditEntry } from '../audit/audit.ts';
import { authorize, type Principal } from '../policy/access.ts';
import type { Api, ApiEnv, RegistryParts } from './context.ts';
import { apiError } from './problems.ts';
import { type MatchedRoute, routeOf } from './route-table.ts';
import { refuseTokenInUrl, shownPath } from './urls.ts';

/** What a request of anybody at all can cause; noted within bounds. */
const refusals: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'token-missing',
  'token-invalid',
  'token-in-url',
  'role-forbidden',
  'namespace-forbidden',
]);

/** The one who connected: a proxy in front of this registry, where there is one. Null without a connection (tests). */
function addressOf(c: Context<ApiEnv>): string | null {
  const env: unknown = c.env;
  if (typeof env !== 'object' || env === null || !('incoming' in env)) return null;
  return getConnInfo(c).remote.address ?? null;
}

/** What the person gave as a reason, where the route has read the body. */
async function reasonOf(c: Context<ApiEnv>): Promise<string | null> {
  const { bodyCache } = c.req;
  if (bodyCache.json === undefined && bodyCache.text === undefined) return null;
  let body: unknown;
  try {
    body = await c.req.json();
  } catch {
    // The route refused it: that is the outcome.
    return null;
  }
  if (typeof body !== 'object' || body === null) return null;
  if ('reason' in body && typeof body.reason === 'string') return body.reason;
  return 'comment' in body && typeof body.comment === 'string' ? body.comment : null;
}

const isRead = (c: Context<ApiEnv>): boolean => c.req.method === 'GET' || c.req.method === 'HEAD';

const nothing = { reason: null, code: null, rule: null };

/** The entry as far as it is known before the route runs. */
function begunEntry(c: Context<ApiEnv>): NewAuditEntry {
  const principal = c.get('principal');
  const route = c.get('route');
  const params = [...(route?.params.values() ?? [])];
  const detail: NewAuditEntry['detail'] = { requestId: c.get('requestId') };
  if (principal !== null) detail.tokenId = principal.tokenId;
  for (const name of route?.row.filter ?? []) {
    const value = c.req.query(name);
    if (value !== undefined) detail[`filter.${name}`] = shownPath(value);
  }
  return {
    actor: principal === null ? 'stranger' : `user:${principal.user}`,
    via: 'api',
    action: route?.row.verb ?? 'api.unknown',
    subject: params.length === 0 ? null : params.map(shownPath).join('/'),
    outcome: 'done',
    address: addressOf(c),
    detail,
    ...nothing,
  };
}

async function endedEntry(c: Context<ApiEnv>, error: FleetError | null): Promise<NewAuditEntry> {
  const code = error?.code ?? null;
  const begun = begunEntry(c);
  const { subject, rule, detail } = c.get('audited');
  return {
    ...begun,
    subject: subject ?? begun.subject,
    reason: await reasonOf(c),
    outcome: code === null ? 'done' : codes[code].http >= 500 ? 'failed' : 'refused',
    code,
    rule: error?.rule ?? rule,
    detail: { ...begun.detail, ...detail, status: c.res.status },
  };
}

/** Registered before whatever may refuse: it sees every outcome. */
export function useAudit(app: Api, parts: RegistryParts): void {
  const { audit } = parts;
  app.use('/api/v1/*', async (c, next) => {
    c.set('route', routeOf(c.req.method, c.req.path));
    c.set('auditOpen', null);
    c.set('audited', { subject: null, rule: null, detail: {} });
    await next();
    const error = c.error === undefined ? null : apiError(c.error);
    const code = error?.code ?? null;
    const open = c.get('auditOpen');
    const principal = c.get('principal');
    // A throw from here on makes the answer a failure, and nothing of a read has left by then.
    if (open !== null) await audit.finish(open, await endedEntry(c, error));
    else if (code !== null && refusals.has(code)) {
      // Who reads without a token learns nothing and is nobody: only what they send in a token's place is news.
      if (code === 'token-missing' && isRead(c)) return;
      const key = principal === null ? `stranger:${code}` : `token:${principal.tokenId}`;
      await audit.appendRefusal(key, await endedEntry(c, error));
    } else if (c.get('route')?.row.audited === true) await audit.append(await endedEntry(c, error));
  });
  app.use('/api/v1/*', async (c, next) => {
    refuseTokenInUrl(c.req.path, c.req.queries());
    await next();
  });
}

/** By role, and by the namespace where the path names it; what stands in bodies and in the store is the route's to ask. */
function admit(principal: Principal | null, { row, params }: MatchedRoute): void {
  if (row.actions === 'public') return;
  if (principal === null) throw new FleetError('token-missing', 'this needs a token');
  const namespaces = { path: params.get('namespace') ?? null, fleet: null };
  const namespace =
    row.scope === 'path' || row.scope === 'fleet' ? namespaces[row.scope] : principal.namespace;
  const answers = row.actions.map((action) => authorize(principal, action, namespace));
  if (answers.some(({ ok }) => ok)) return;
  const nearest = answers.find((one) => !one.ok && one.refusal.code === 'namespace-forbidden');
  for (const answer of nearest === undefined ? answers : [nearest]) unwrap(answer);
}

/** Registered behind the check of the token and before any route reads a parameter or a body. */
export function useGate(app: Api, parts: RegistryParts): void {
  app.use('/api/v1/*', async (c, next) => {
    const route = c.get('route');
    if (route !== null) {
      admit(c.get('principal'), route);
      // An end in the middle of a read changed nothing and showed nothing.
      if (route.row.audited && !isRead(c)) c.set('auditOpen', await parts.audit.begin(begunEntry(c)));
    }
    await next();
  });
}

/** Every route that was registered must stand in the table. Fault `internal`: a mistake in this program. */
export function requireRows(app: Api): void {
  const missing = app.routes
    .filter(({ method, path }) => method !== 'ALL' && path.startsWith('/api/v1/'))
    .map(({ method, path }) => ({ method, path: path.replace(/:(\w+)(?:\{[^}]*\})?/g, '{$1}') }))
    .filter(({ method, path }) => {
      const row = routeOf(method, path)?.row;
      return row?.path !== path;
    });
  const [first] = missing;
  if (first !== undefined)
    throw new FleetError(
      'internal',
      `${first.method} ${first.path} has no row in registry/api/route-table.ts`,
    );
}
