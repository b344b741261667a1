// Why: which path of the device's HTTP means what, and what the protocol wants as its answer.
// Trusts: nothing in the request. Must never: answer a path behind the token without it.

import type { IncomingMessage } from 'node:http';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  type ModelMetadata,
  onnxPlatform,
  type RepositoryIndex,
  type ServerMetadata,
} from '../../shared/wire/oip.ts';
import type { ServedModel } from '../inference/host.ts';
import { type Answer, json, type RouteParts } from './answer.ts';
import { findModel, infer } from './infer-route.ts';
import { metrics, page } from './observe-route.ts';

type FixedKind =
  | 'server'
  | 'live'
  | 'ready'
  | 'healthz'
  | 'status'
  | 'index'
  | 'records'
  | 'metrics'
  | 'page';

type Route =
  | { kind: FixedKind }
  | { kind: 'model' | 'model-ready' | 'infer'; model: string; version: string | null };

const fixed: Record<string, FixedKind> = {
  '/': 'page',
  '/metrics': 'metrics',
  '/v2': 'server',
  '/v2/health/live': 'live',
  '/v2/health/ready': 'ready',
  '/v2/repository/index': 'index',
  '/healthz': 'healthz',
  '/status': 'status',
  '/telemetry/v1/records': 'records',
};

/** Null where there is no such path. `input-invalid` where it is not even a path. */
function findRoute(url: string): Result<Route | null> {
  let path: string;
  try {
    path = decodeURIComponent(url.split('?', 1)[0] ?? '');
  } catch (error) {
    return refuse(
      'input-invalid',
      `the path is no valid encoding: ${error instanceof Error ? error.message : ''}`,
    );
  }
  if (path.length > 1 && path.endsWith('/')) path = path.slice(0, -1);
  const plain = Object.hasOwn(fixed, path) ? fixed[path] : undefined;
  if (plain !== undefined) return ok({ kind: plain });
  const match = /^\/v2\/models\/([^/]+)(?:\/versions\/([^/]+))?(?:\/(ready|infer))?$/.exec(path);
  const model = match?.[1];
  if (match === null || model === undefined) return ok(null);
  const version = match[2] ?? null;
  if (match[3] === 'infer') return ok({ kind: 'infer', model, version });
  return ok({ kind: match[3] === 'ready' ? 'model-ready' : 'model', model, version });
}

const methods: Record<Route['kind'], readonly string[]> = {
  server: ['GET', 'HEAD'],
  live: ['GET', 'HEAD'],
  ready: ['GET', 'HEAD'],
  healthz: ['GET', 'HEAD'],
  status: ['GET', 'HEAD'],
  metrics: ['GET', 'HEAD'],
  page: ['GET', 'HEAD'],
  model: ['GET', 'HEAD'],
  'model-ready': ['GET', 'HEAD'],
  // The extension says POST; a person types the address.
  index: ['GET', 'HEAD', 'POST'],
  infer: ['POST'],
  records: ['POST'],
};

/** Open without a token: probes of a supervisor carry none, and they tell nothing. */
const open: ReadonlySet<Route['kind']> = new Set(['live', 'ready', 'healthz']);

/** Answers one request. Refusals carry the code whose HTTP status is sent. */
export async function routeRequest(request: IncomingMessage, parts: RouteParts): Promise<Result<Answer>> {
  const found = findRoute(request.url ?? '');
  if (!found.ok) return found;
  const route = found.value;
  if (!(route !== null && open.has(route.kind)) && !parts.mayEnter(request)) {
    const body = Buffer.from(JSON.stringify({ error: 'a token is needed' }), 'utf8');
    return ok({
      status: 401,
      body,
      // A browser asks for a name and a password: the password is the token.
      headers: {
        'www-authenticate': route?.kind === 'page' ? 'Basic realm="lepton-agent"' : 'Bearer',
        'x-lepton-code': 'auth-required',
      },
    });
  }
  if (route === null) return refuse('not-found', 'no such path; GET /v2/repository/index lists the models');
  const method = request.method ?? '';
  const allowed = methods[route.kind];
  if (!allowed.includes(method)) {
    const body = Buffer.from(JSON.stringify({ error: `use ${allowed.join(' or ')}` }), 'utf8');
    return ok({
      status: 405,
      body,
      headers: { allow: allowed.join(', '), 'x-lepton-code': 'method-not-allowed' },
    });
  }
  const { inference } = parts;
  switch (route.kind) {
    case 'healthz':
    case 'live':
      return ok(json({ live: true }));
    case 'ready': {
      const ready = !parts.closing() && inference.models().every((model) => model.ready);
      return ok(json({ ready }, ready ? 200 : 503));
    }
    case 'server': {
      const metadata: ServerMetadata = {
        name: 'lepton-agent',
        version: parts.version,
        extensions: ['model_repository', 'model_repository(index)'],
      };
      return ok(json(metadata));
    }
    case 'status':
      return ok(json(await parts.status()));
    case 'metrics':
      return ok(await metrics(parts));
    case 'page':
      return ok(await page(request, parts));
    case 'index':
      return ok(json(repositoryIndex(inference.models())));
    case 'model':
    case 'model-ready': {
      const model = findModel(inference, route.model, route.version);
      if (!model.ok) return model;
      return route.kind === 'model' ? ok(json(metadataOf(model.value))) : readiness(model.value);
    }
    case 'records':
      return records(request, parts);
    case 'infer':
      return infer(request, route.model, route.version, parts);
  }
}

function metadataOf(model: ServedModel): ModelMetadata {
  return {
    name: model.as,
    versions: [model.version],
    platform: onnxPlatform,
    inputs: model.inputs,
    outputs: model.outputs,
  };
}

function readiness(model: ServedModel): Result<Answer> {
  if (model.ready) return ok(json({ name: model.as, ready: true }));
  return {
    ok: false,
    refusal: model.reason ?? { code: 'infer-not-ready', detail: 'the model is not ready' },
  };
}

function repositoryIndex(models: ServedModel[]): RepositoryIndex {
  return models.map(({ as, version, ready, reason }) => ({
    name: as,
    version,
    state: ready ? 'READY' : 'UNAVAILABLE',
    reason: reason === null ? '' : `${reason.code}: ${reason.detail}`,
  }));
}

/** Answered when every record is durable; with any refusal none of them is kept. */
async function records(request: IncomingMessage, parts: RouteParts): Promise<Result<Answer>> {
  if (parts.record === undefined) return refuse('not-found', 'this agent keeps no telemetry');
  const body = await parts.recordsBody.read(request);
  if (!body.ok) return body;
  try {
    const recorded = await parts.record(body.value.bytes);
    return recorded.ok ? ok(json({ records: recorded.value })) : recorded;
  } finally {
    body.value.done();
  }
}
