// Why: the model repository extension: the index of what is served. Loading is the registry's: what runs here was
// signed, assigned and probed. Trusts: nothing in the request. Must never: load or unload for a client.

import type { IncomingMessage } from 'node:http';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { RepositoryIndex } from '../../shared/wire/oip.ts';
import type { ServedModel } from '../inference/host.ts';
import { type Answer, json, type RouteParts } from './answer.ts';

/** The body is optional; `{"ready": true}` leaves out what cannot answer now. */
export async function repositoryIndex(request: IncomingMessage, parts: RouteParts): Promise<Result<Answer>> {
  let readyOnly = false;
  if (request.method === 'POST') {
    const body = await parts.recordsBody.read(request);
    if (!body.ok) return body;
    const filter = readyOf(Buffer.from(body.value.bytes).toString('utf8'));
    body.value.done();
    if (!filter.ok) return filter;
    readyOnly = filter.value;
  }
  const models = parts.inference.models().filter(({ ready }) => ready || !readyOnly);
  return ok(json(models.map(entryOf)));
}

function readyOf(text: string): Result<boolean> {
  if (text.trim() === '') return ok(false);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    return refuse('input-invalid', `not JSON: ${error instanceof Error ? error.message : ''}`);
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    return refuse('input-invalid', 'the body must be an object');
  const ready = 'ready' in body ? body.ready : false;
  return typeof ready === 'boolean' ? ok(ready) : refuse('input-invalid', 'ready must be true or false');
}

function entryOf({ as, version, ready, reason }: ServedModel): RepositoryIndex[number] {
  return {
    name: as,
    version,
    state: ready ? 'READY' : 'UNAVAILABLE',
    reason: reason === null ? '' : `${reason.code}: ${reason.detail}`,
  };
}

export function loadOrUnload(model: string): Result<Answer> {
  return refuse(
    'infer-unsupported',
    `models come and go by rollouts only (lepton rollout start); ${JSON.stringify(model)} is left as it is`,
  );
}
