// Why: what is asked of another region's door, and how its answers are read.
// Trusts: nothing in an answer before its schema. Must never: take a refusal of the other end for an empty answer.

import { isErrorCode } from '../../shared/kernel/codes.ts';
import type { DoorPeer, RegionLine } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { MetadataFetcher } from '../../shared/trust/tuf/client.ts';
import { describeIssues, parseMessage } from '../../shared/wire/messages.ts';
import {
  doorProblemSchema,
  type JoinRequest,
  joinAnswerSchema,
  regionRootsSchema,
  type StreamPage,
  streamPageSchema,
} from '../../shared/wire/regions.ts';
import type { RegionLimits } from './limits.ts';

export interface RegionAsker {
  join(request: JoinRequest): Promise<Result<{ list: Uint8Array; roots: Uint8Array[] }>>;
  /** Exact bytes of the signed list. */
  list(): Promise<Result<Uint8Array>>;
  /** Region roots behind that version, oldest first; 0: all. */
  regionRoots(after: number): Promise<Result<Uint8Array[]>>;
  /** Where this region's own door is now. */
  moved(url: string): Promise<Result<void>>;
  metadata: MetadataFetcher;
  /** Bytes of a file from `offset`. Refusal: `mirror-incomplete` where it has none. */
  part(sha256: string, offset: number, length: number): Promise<Result<Uint8Array>>;
  page(stream: string, after: number): Promise<Result<StreamPage>>;
}

const encoder = new TextEncoder();

export function createAsker(parts: {
  line: RegionLine;
  peer: DoorPeer;
  limits: RegionLimits;
  /** Told of every answer's size on the wire. */
  onBytes?(bytes: number): void;
}): RegionAsker {
  const { line, peer, limits } = parts;

  async function ask(
    path: string,
    bytesMax: number,
    body?: object,
  ): Promise<Result<{ status: number; bytes: Uint8Array }>> {
    const answer = await line.ask(peer, {
      method: body === undefined ? 'GET' : 'POST',
      path: `/regions/v1/${path}`,
      ...(body === undefined ? {} : { body: encoder.encode(JSON.stringify(body)) }),
      bytesMax,
      timeoutMs: limits.askTimeoutMs,
    });
    if (!answer.ok) return answer;
    parts.onBytes?.(answer.value.wireBytes);
    return answer;
  }

  /** The body of an answer; the other end's refusal by its own code. */
  async function get(path: string, bytesMax: number, body?: object): Promise<Result<Uint8Array>> {
    const answer = await ask(path, bytesMax, body);
    if (!answer.ok) return answer;
    const { status, bytes } = answer.value;
    if (status === 200) return ok(bytes);
    const problem = parseMessage(doorProblemSchema, bytes);
    if (!problem.ok) return refuse('region-answer-invalid', `status ${status} without a reason`);
    const { code, detail } = problem.value;
    return isErrorCode(code) ? refuse(code, detail) : refuse('region-answer-invalid', `${code}: ${detail}`);
  }

  return {
    async join(request) {
      const bytes = await get('join', limits.metadataBytesMax, request);
      if (!bytes.ok) return bytes;
      const answer = parseMessage(joinAnswerSchema, bytes.value);
      if (!answer.ok) return refuse('region-answer-invalid', answer.refusal.detail);
      const { list, roots } = answer.value;
      const decode = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
      return ok({ list: decode(list), roots: roots.map(decode) });
    },
    list: () => get('list', limits.metadataBytesMax),
    async regionRoots(after) {
      const bytes = await get(`region-roots?after=${after}`, limits.metadataBytesMax);
      if (!bytes.ok) return bytes;
      const answer = parseMessage(regionRootsSchema, bytes.value);
      if (!answer.ok) return refuse('region-answer-invalid', answer.refusal.detail);
      return ok(answer.value.roots.map((text) => new Uint8Array(Buffer.from(text, 'base64'))));
    },
    async moved(url) {
      const answer = await get('moved', limits.metadataBytesMax, { url });
      return answer.ok ? ok() : answer;
    },
    metadata: {
      fetch: (name, bytesMax) => get(`metadata/${name}`, bytesMax),
    },
    part: (sha256, offset, length) =>
      get(`blobs/${sha256}?offset=${offset}&length=${length}`, length + 64 * 1024),
    async page(stream, after) {
      const bytes = await get(
        `streams/${stream}?after=${after}&limit=${limits.pageItems}`,
        limits.pageBytesMax,
      );
      if (!bytes.ok) return bytes;
      let json: unknown;
      try {
        json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.value));
      } catch {
        return refuse('region-answer-invalid', `the page of ${stream} is no JSON`);
      }
      const page = streamPageSchema.safeParse(json);
      return page.success ? ok(page.data) : refuse('region-answer-invalid', describeIssues(page.error));
    },
  };
}
