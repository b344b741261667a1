// Why: which path of the device's HTTP means what, and what the protocol wants as its answer.
// Trusts: nothing in the request. Must never: answer a path behind the token without it.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type ModelMetadata, onnxPlatform, type ServerMetadata } from '../../shared/wire/oip.ts';
import type { ServedModel } from '../inference/host.ts';
import { type Answer, type Call, json, type RouteParts } from './answer.ts';
import { defer } from './defer-route.ts';
import { departureOf } from './departure.ts';
import { findModel, infer } from './infer-route.ts';
import { metrics, page } from './observe-route.ts';
import { loadOrUnload, repositoryIndex } from './repository-route.ts';
import { statistics } from './stats-route.ts';
import { streamRoute } from './stream-route.ts';

type FixedKind =
  | 'server'
  | 'live'
  | 'ready'
  | 'healthz'
  | 'status'
  | 'index'
  | 'stats'
  | 'records'
  | 'deferral'
  | 'metrics'
  | 'page';
type ModelKind = 'model' | 'model-ready' | 'model-stats' | 'infer' | 'stream';

type Route =
  | { kind: FixedKind }
  | { kind: ModelKind; model: string; version: string | null }
  | { kind: 'load'; model: string };

const fixed: Record<string, FixedKind> = {
  '/': 'page',
  '/metrics': 'metrics',
  '/v2': 'server',
  '/v2/health/live': 'live',
  '/v2/health/ready': 'ready',
  '/v2/models/stats': 'stats',
  '/v2/repository/index': 'index',
  '/healthz': 'healthz',
  '/status': 'status',
  '/telemetry/v1/records': 'records',
  '/updates/v1/deferral': 'deferral',
};

const modelKinds: Record<string, ModelKind> = {
  ready: 'model-ready',
  stats: 'model-stats',
  infer: 'infer',
  stream: 'stream',
};

/** Of the last paths: applications ask the same few again and again. */
const foundRoutes = new Map<string, Route>();
const foundRoutesMax = 64;
const rememberedUrlMax = 256;

function findRoute(url: string): Result<Route | null> {
  const known = foundRoutes.get(url);
  if (known !== undefined) return ok(known);
  const found = readRoute(url);
  if (!found.ok || found.value === null || url.length > rememberedUrlMax) return found;
  if (foundRoutes.size >= foundRoutesMax) foundRoutes.clear();
  foundRoutes.set(url, found.value);
  return found;
}

/** Null where there is no such path. `input-invalid` where it is not even a path. */
function readRoute(url: string): Result<Route | null> {
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
  const match = /^\/v2\/models\/([^/]+)(?:\/versions\/([^/]+))?(?:\/(ready|stats|infer|stream))?$/.exec(path);
  const model = match?.[1];
  if (match !== null && model !== undefined)
    return ok({ kind: modelKinds[match[3] ?? ''] ?? 'model', model, version: match[2] ?? null });
  const loaded = /^\/v2\/repository\/models\/([^/]+)\/(?:un)?load$/.exec(path)?.[1];
  return ok(loaded === undefined ? null : { kind: 'load', model: loaded });
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
  stats: ['GET', 'HEAD'],
  'model-stats': ['GET', 'HEAD'],
  // The extension says POST; a person types the address.
  index: ['GET', 'HEAD', 'POST'],
  load: ['POST'],
  infer: ['POST'],
  stream: ['POST'],
  records: ['POST'],
  deferral: ['POST'],
};

/** Open without a token: probes of a supervisor carry none, and they tell nothing. */
const open: ReadonlySet<Route['kind']> = new Set(['live', 'ready', 'healthz']);

function callOf(request: IncomingMessage, parts: RouteParts): Call {
  return {
    headers: request.headers,
    body: (alignAt) => parts.body.read(request, alignAt),
    departure: () => departureOf(request.socket),
  };
}

/** What a path asks for inference, null where it is another one. */
export function inferRoute(path: string): { model: string; version: string | null } | null {
  const found = findRoute(path);
  return found.ok && found.value?.kind === 'infer' ? found.value : null;
}

/** Answers one request. Refusals carry the code whose HTTP status is sent. */
export function routeRequest(
  request: IncomingMessage,
  response: ServerResponse,
  parts: RouteParts,
): Result<Answer> | Promise<Result<Answer>> {
  const found = findRoute(request.url ?? '');
  if (!found.ok) return found;
  const route = found.value;
  if (!(route !== null && open.has(route.kind)) && !parts.mayEnter(request.headers)) {
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
      const { name, version, extensions } = parts.server;
      return ok(json({ name, version, extensions: [...extensions] } satisfies ServerMetadata));
    }
    case 'status':
      return parts.status().then((status) => ok(json(status)));
    case 'metrics':
      return metrics(parts).then((answer) => ok(answer));
    case 'page':
      return page(request, parts).then((answer) => ok(answer));
    case 'index':
      return repositoryIndex(request, parts);
    case 'load':
      return loadOrUnload(route.model);
    case 'stats':
      return ok(statistics(inference.models()));
    case 'model':
    case 'model-ready':
    case 'model-stats': {
      const model = findModel(inference, route.model, route.version);
      if (!model.ok) return model;
      if (route.kind === 'model-stats') return ok(statistics([model.value]));
      return route.kind === 'model' ? ok(json(metadataOf(model.value))) : readiness(model.value);
    }
    case 'records':
      return records(request, parts);
    case 'deferral':
      return defer(request, parts);
    case 'stream':
      return streamRoute(request, response, route.model, route.version, parts);
    case 'infer':
      return infer(callOf(request, parts), route.model, route.version, parts);
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
