// Why: the registry's HTTP API: one Hono app whose routes, validation and OpenAPI document come from the
// schemas of shared/wire. Trusts: the listener for TLS. Must never: run a route before the token was
// checked, nor answer with anything but a problem document where it refuses.

import { OpenAPIHono } from '@hono/zod-openapi';
import { bodyLimit } from 'hono/body-limit';
import { codes } from '../../shared/kernel/codes.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import { withoutTokens } from '../policy/access.ts';
import { registerAccessRoutes } from './access-routes.ts';
import { registerAuditRoutes } from './audit-routes.ts';
import { requireRows, useAudit, useGate } from './auditing.ts';
import { registerAuthorityRoutes } from './authority-routes.ts';
import { registerBackupRoutes } from './backup-routes.ts';
import { registerCatalogueRoutes } from './catalogue-routes.ts';
import { registerCellRoutes } from './cell-routes.ts';
import type { Api, ApiEnv, RegistryParts } from './context.ts';
import { registerEvidenceRoutes } from './evidence-routes.ts';
import { registerFleetRoutes } from './fleet-routes.ts';
import { registerGroupRoutes } from './group-routes.ts';
import { registerKeyRoutes } from './key-routes.ts';
import { registerMaskingRoutes } from './masking-routes.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { registerMoveRoutes } from './move-routes.ts';
import { registerPolicyRoutes } from './policy-routes.ts';
import { answerProblem, apiError } from './problems.ts';
import { registerRegionRoutes } from './region-routes.ts';
import { registerReportRoutes } from './report-routes.ts';
import { registerRightsRoutes } from './rights-routes.ts';
import { registerRolloutRoutes } from './rollout-routes.ts';
import { registerSampleRoutes } from './sample-routes.ts';
import { registerTelemetryRoutes } from './telemetry-routes.ts';
import { shownPath } from './urls.ts';
import { registerWebhookRoutes } from './webhook-routes.ts';

/** A push holds targets metadata (8 MiB at most) and a manifest, in base64. */
const jsonBytesMax = 16 * 1024 * 1024;

const blobPath = /^\/api\/v1\/blobs\//;

export interface RegistryApi {
  /** `env`: what the listener knows of the connection; absent: no address is known. */
  fetch: (request: Request, env?: object) => Response | Promise<Response>;
  metrics: Metrics;
}

function useTokens(app: Api, parts: RegistryParts): void {
  app.use('/api/v1/*', async (c, next) => {
    const header = c.req.header('authorization');
    if (header !== undefined) {
      const token = /^Bearer ([\x21-\x7e]{1,512})$/i.exec(header)?.[1];
      if (token === undefined)
        throw new FleetError('token-invalid', 'the Authorization header is not Bearer TOKEN');
      c.set('principal', unwrap(await parts.access.authenticate(token)));
    }
    await next();
  });
}

function useRequestLog(app: Api, parts: RegistryParts, metrics: Metrics): void {
  app.use('*', async (c, next) => {
    const startedMs = parts.clock.mono();
    const requestId = Buffer.from(parts.entropy.bytes(8)).toString('hex');
    c.set('principal', null);
    c.set('requestId', requestId);
    await next();
    c.header('x-request-id', requestId);
    const tookMs = parts.clock.mono() - startedMs;
    metrics.request(c.res.status);
    parts.log.emit(c.req.path.startsWith('/api/') ? 'info' : 'debug', 'http.request', {
      requestId,
      method: c.req.method,
      path: shownPath(c.req.path),
      status: c.res.status,
      tookMs: Math.round(tookMs * 10) / 10,
      user: c.get('principal')?.user ?? null,
    });
  });
}

function useErrors(app: Api, parts: RegistryParts): void {
  app.onError((thrown, c) => {
    const error = apiError(thrown);
    // A refusal is an answer; only what is our own fault is an error in the log.
    if (codes[error.code].http >= 500) {
      parts.log.emit('error', 'http.failed', {
        requestId: c.get('requestId'),
        path: shownPath(c.req.path),
        code: error.code,
        detail: withoutTokens(error.message),
        ...(error.code === 'internal' && error.cause instanceof Error
          ? { stack: withoutTokens(error.cause.stack ?? '') }
          : {}),
      });
    }
    return answerProblem(c, error);
  });
  app.notFound((c) =>
    answerProblem(
      c,
      new FleetError('not-found', `there is nothing at ${c.req.method} ${shownPath(c.req.path)}`),
    ),
  );
}

function addHealthRoutes(app: Api, parts: RegistryParts, ready: () => boolean, metrics: Metrics): void {
  app.get('/healthz', (c) => c.json({ status: 'ok' }));
  app.get('/readyz', (c) => {
    if (!ready()) throw new FleetError('registry-not-ready', 'the registry is starting or stopping');
    const connected = parts.brokerConnected ?? null;
    // Ready without its broker: people see and plan, devices go on with what they have.
    if (connected === null) return c.json({ status: 'ready' });
    return c.json({ status: 'ready', broker: connected() ? 'connected' : 'disconnected' });
  });
  app.get('/metrics', async (c) =>
    c.body(await metrics.text(parts), 200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }),
  );
}

/**
 * The whole API over the registry's parts. `ready` is false while the registry starts or stops:
 * `/readyz` and every `/api/` route then answer `registry-not-ready`.
 */
export function createApi(parts: RegistryParts, ready: () => boolean): RegistryApi {
  const app: Api = new OpenAPIHono<ApiEnv>({
    defaultHook: (result) => {
      if (!result.success) throw new FleetError('input-invalid', describeIssues(result.error));
    },
  });
  const metrics = createMetrics();
  useRequestLog(app, parts, metrics);
  useErrors(app, parts);
  addHealthRoutes(app, parts, ready, metrics);
  app.use('/api/*', async (_c, next) => {
    if (!ready()) throw new FleetError('registry-not-ready', 'the registry is starting or stopping');
    await next();
  });
  useAudit(app, parts);
  useTokens(app, parts);
  useGate(app, parts);

  const limitJson = bodyLimit({
    maxSize: jsonBytesMax,
    onError: () => {
      throw new FleetError('body-too-large', `a JSON body may have ${jsonBytesMax} bytes`);
    },
  });
  // Files are streamed and bounded where they are written.
  app.use('/api/*', (c, next) => (blobPath.test(c.req.path) ? next() : limitJson(c, next)));

  app.openAPIRegistry.registerComponent('securitySchemes', 'token', { type: 'http', scheme: 'bearer' });
  registerAccessRoutes(app, parts);
  registerAuditRoutes(app, parts);
  registerCatalogueRoutes(app, parts);
  // Before the fleet's: `devices/revoked` is no device.
  registerAuthorityRoutes(app, parts);
  registerFleetRoutes(app, parts);
  registerKeyRoutes(app, parts);
  registerRolloutRoutes(app, parts);
  registerGroupRoutes(app, parts);
  registerTelemetryRoutes(app, parts);
  registerMaskingRoutes(app, parts);
  registerBackupRoutes(app, parts);
  registerRightsRoutes(app, parts);
  registerPolicyRoutes(app, parts);
  registerSampleRoutes(app, parts);
  registerWebhookRoutes(app, parts.webhooks);
  registerEvidenceRoutes(app, parts);
  registerRegionRoutes(app, parts);
  registerCellRoutes(app, parts);
  registerReportRoutes(app, parts);
  registerMoveRoutes(app, parts);
  app.doc31('/api/v1/openapi.json', {
    openapi: '3.1.0',
    info: { title: 'Lepton Fleet registry', version: parts.version },
    security: [{ token: [] }],
  });
  requireRows(app);
  return { fetch: (request, env) => app.fetch(request, env), metrics };
}
