// Why: what this region answers to others: the list, the catalogue, files of releases, and the lists of what may leave it.
// Trusts: the handshake for which key asks. Must never: answer a stranger with more than a refusal, or give anything of
// which the policy does not say yes.

import { codes } from '../../shared/kernel/codes.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import type { DoorHandler, DoorRequest, Log } from '../../shared/kernel/ports.ts';
import { sha256Pattern } from '../../shared/kernel/releases.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { metadataNamePattern, parseMessage } from '../../shared/wire/messages.ts';
import { doorMovedSchema, joinRequestSchema, type RegionEntry } from '../../shared/wire/regions.ts';
import { type TelemetryClass, telemetryClasses } from '../../shared/wire/telemetry.ts';
import type { RegistryCore } from '../core.ts';
import type { Decision, FlowClass, RegionPolicies } from '../policy/flows.ts';
import type { RegionLimits } from './limits.ts';
import type { Members } from './members.ts';
import type { OutgoingStream, StreamItem } from './streams.ts';

const encoder = new TextEncoder();
const jsonBytes = (value: unknown): Uint8Array => encoder.encode(JSON.stringify(value));
const joinBody = 64 * 1024;

/** A refusal of the policy, with its rule. */
type DoorRefusal = Refusal & { rule?: string };

function problem({ code, detail, rule }: DoorRefusal): { status: number; bytes: Uint8Array } {
  return {
    status: codes[code].http,
    bytes: jsonBytes({ code, detail, ...(rule === undefined ? {} : { rule }) }),
  };
}

function wholeNumber(text: string | null, max: number): number | null {
  if (text === null || !/^\d{1,15}$/.test(text)) return null;
  const value = Number(text);
  return value <= max ? value : null;
}

export interface DoorParts {
  core: RegistryCore;
  members: Members;
  policies: RegionPolicies;
  streams: readonly OutgoingStream[];
  limits: RegionLimits;
  /** False while the registry starts or stops. */
  ready(): boolean;
  /** Told what the policy refused, to be audited. */
  onDenied(denied: { region: string; flow: FlowClass; rule: string; what: string }): Promise<void>;
  /** A member asks something. */
  onAsked(region: string): void;
  log: Log;
}

/** The classes of raw telemetry that a path of nobody's names. */
function rawAsked(what: string, name: string): readonly TelemetryClass[] {
  const asked = what === 'streams' ? name : what;
  if (asked === 'telemetry') return telemetryClasses;
  return telemetryClasses.filter((one) => one === asked);
}

export function createDoorHandler(parts: DoorParts): DoorHandler {
  const { core, members, policies, limits, log } = parts;
  const { store, repository, blobs } = core;
  const streams = new Map(parts.streams.map((stream) => [stream.name, stream]));

  async function allowed(
    region: string,
    flow: FlowClass,
    what: string,
  ): Promise<Result<Decision> | { ok: false; refusal: DoorRefusal }> {
    const decision = policies.flow(flow, region);
    if (decision.allowed) return ok(decision);
    await policies.count({ flow, destination: region, decision, bytes: 0, records: 0 });
    await parts.onDenied({ region, flow, rule: decision.rule, what });
    const refusal = refuse('policy-denied', `${decision.reason} (rule ${decision.rule})`).refusal;
    return { ok: false, refusal: { ...refusal, rule: decision.rule } };
  }

  async function join(request: DoorRequest): Promise<Result<Uint8Array>> {
    if (request.body.length > joinBody) return refuse('body-too-large', 'too much for a request to join');
    const wanted = parseMessage(joinRequestSchema, request.body);
    if (!wanted.ok) return refuse('input-invalid', wanted.refusal.detail);
    const joined = await members.join(wanted.value, request.publicKey);
    if (!joined.ok) return joined;
    const { list, roots } = joined.value;
    const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
    return ok(jsonBytes({ list: base64(list), roots: roots.map(base64) }));
  }

  async function metadata(name: string): Promise<Result<Uint8Array>> {
    const bytes = metadataNamePattern.test(name) ? await repository.file(name) : null;
    return bytes === null ? refuse('metadata-missing', `no file ${name.slice(0, 80)}`) : ok(bytes);
  }

  async function part(sha256: string, query: URLSearchParams): Promise<Result<Uint8Array>> {
    const offset = wholeNumber(query.get('offset'), Number.MAX_SAFE_INTEGER);
    const length = wholeNumber(query.get('length'), limits.partBytes);
    if (!sha256Pattern.test(sha256) || offset === null || length === null)
      return refuse('input-invalid', 'expected a digest, offset and length');
    const bytes = await blobs.readRange(sha256, offset, length);
    return bytes === null ? refuse('mirror-incomplete', 'that file is not here yet') : ok(bytes);
  }

  async function regionRoots(query: URLSearchParams): Promise<Result<Uint8Array>> {
    const after = wholeNumber(query.get('after'), Number.MAX_SAFE_INTEGER);
    if (after === null) return refuse('input-invalid', 'after: expected a version');
    const { region } = await repository.roots();
    const roots: string[] = [];
    for (let version = after + 1; version <= region.version && roots.length < 1_000; version += 1) {
      const bytes = await repository.file(`region/${version}.root.json`);
      if (bytes !== null) roots.push(Buffer.from(bytes).toString('base64'));
    }
    return ok(jsonBytes({ roots }));
  }

  /** As many items as fit into one answer. */
  function fitting(items: readonly StreamItem[]): { items: StreamItem[]; bytes: number } {
    const taken: StreamItem[] = [];
    let bytes = 0;
    for (const item of items) {
      bytes += JSON.stringify(item.body)?.length ?? 0;
      if (taken.length > 0 && bytes > limits.pageBytesMax / 2) break;
      taken.push(item);
    }
    return { items: taken, bytes };
  }

  async function page(entry: RegionEntry, stream: OutgoingStream, query: URLSearchParams) {
    const after = wholeNumber(query.get('after'), Number.MAX_SAFE_INTEGER);
    const limit = wholeNumber(query.get('limit'), 1_000);
    if (after === null || limit === null || limit < 1)
      return refuse('input-invalid', 'expected after and limit');
    const decision = await allowed(entry.region, stream.flow, `stream ${stream.name}`);
    if (!decision.ok) return decision;
    const read = await store.tx((db) => stream.readIn(db, entry.region, after, limit));
    const { items } = fitting(read);
    const more = items.length < read.length || read.length === limit;
    const bytes = jsonBytes({ incarnation: core.incarnation, items, more });
    if (items.length > 0)
      await policies.count({
        flow: stream.flow,
        destination: entry.region,
        decision: decision.value,
        bytes: bytes.length,
        records: items.length,
      });
    return ok(bytes);
  }

  /** Raw records are in no list, whatever the policy says; who asks for them is told its rule, and it is on record. */
  async function noRecords(
    entry: RegionEntry,
    classes: readonly TelemetryClass[],
    path: string,
  ): Promise<Result<Uint8Array>> {
    for (const flow of classes) {
      const decision = await allowed(entry.region, flow, path.slice(0, 200));
      if (!decision.ok) return decision;
    }
    return refuse(
      'not-found',
      'regions do not pull raw records; lepton telemetry export --to REGION takes them',
    );
  }

  async function ofMember(entry: RegionEntry, request: DoorRequest): Promise<Result<Uint8Array>> {
    const { method, query } = request;
    const [, what = '', ...rest] = /^\/regions\/v1\/([a-z-]+)(?:\/(.+))?$/.exec(request.path) ?? [];
    const name = rest[0] ?? '';
    if (method === 'POST' && what === 'moved') {
      const moved = parseMessage(doorMovedSchema, request.body);
      if (!moved.ok) return refuse('input-invalid', moved.refusal.detail);
      const done = await members.moved(entry.region, moved.value.url);
      return done.ok ? ok(jsonBytes({})) : done;
    }
    if (method !== 'GET') return refuse('not-found', `nothing at ${method} ${request.path}`);
    if (what === 'list') return ok((await members.envelope()) ?? new Uint8Array());
    if (what === 'region-roots') return regionRoots(query);
    const stream = what === 'streams' ? streams.get(name) : undefined;
    if (stream !== undefined) return page(entry, stream, query);
    const raw = rawAsked(what, name);
    if (raw.length > 0) return noRecords(entry, raw, request.path);
    if (what === 'metadata' || what === 'blobs') {
      const decision = await allowed(entry.region, 'catalogue', `${what} ${name}`);
      if (!decision.ok) return decision;
      const answer = what === 'metadata' ? await metadata(name) : await part(name, query);
      if (answer.ok)
        await policies.count({
          flow: 'catalogue',
          destination: entry.region,
          decision: decision.value,
          bytes: answer.value.length,
          records: 1,
        });
      return answer;
    }
    return refuse('not-found', `nothing at ${request.path.slice(0, 200)}`);
  }

  return async (request) => {
    if (!parts.ready()) return problem(refuse('registry-not-ready', 'it is starting or stopping').refusal);
    try {
      if (request.method === 'POST' && request.path === '/regions/v1/join') {
        const joined = await join(request);
        return joined.ok ? { status: 200, bytes: joined.value } : problem(joined.refusal);
      }
      const entry = await members.byKey(request.publicKey);
      if (entry === null) return problem(refuse('region-unknown', 'no region has this key').refusal);
      parts.onAsked(entry.region);
      const answer = await ofMember(entry, request);
      return answer.ok ? { status: 200, bytes: answer.value } : problem(answer.refusal);
    } catch (thrown) {
      const error = asFleetError(thrown);
      log.emit('error', 'regions.door.failed', { code: error.code, detail: error.message });
      return problem({ code: error.code, detail: 'something went wrong inside the region' });
    }
  };
}
