// Why: the CLI's side of the registry's HTTP API: every answer is validated, every failure has a code.
// Trusts: TLS for https URLs. Must never: print the token, or take an answer of another program for ours.

import { z } from 'zod';
import { speaker } from '../../shared/host/speech.ts';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { problemSchema } from '../../shared/wire/http.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import { setting } from './settings.ts';

export interface Connection {
  registry?: string;
  token?: string;
}

export interface RegistryClient {
  baseUrl: string;
  get<S extends z.ZodType>(path: string, schema: S): Promise<z.infer<S>>;
  send<S extends z.ZodType>(
    method: 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body: object,
    schema: S,
  ): Promise<z.infer<S>>;
  /** Whole body, or null where the registry answers 404. */
  bytes(path: string): Promise<Uint8Array | null>;
  /** The body piece by piece; `not-found` where the registry answers 404. */
  stream(path: string): AsyncIterable<Uint8Array>;
  exists(path: string): Promise<boolean>;
  upload(path: string, body: ReadableStream<Uint8Array>, bytes: number): Promise<void>;
}

export const anyAnswer = z.unknown();

export function connect(options: Connection): RegistryClient {
  const registry = setting('registry', options.registry);
  if (registry === undefined) {
    throw new FleetError('config-invalid', 'no registry is named', {
      hint: 'give --registry URL or set LEPTON_REGISTRY',
    });
  }
  let baseUrl: URL;
  try {
    baseUrl = new URL(registry);
  } catch (cause) {
    throw new FleetError('config-invalid', `--registry is no URL: ${registry}`, { cause });
  }
  if (baseUrl.protocol !== 'http:' && baseUrl.protocol !== 'https:') {
    throw new FleetError('config-invalid', `--registry must be an http or https URL: ${registry}`);
  }
  const token = setting('token', options.token);
  if (token === undefined) {
    throw new FleetError('token-missing', 'no token is given', {
      hint: 'give --token T or set LEPTON_TOKEN; the first one stands in DATA/admin.token',
    });
  }
  // A header takes visible ASCII only; anything else would throw deep inside fetch.
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new FleetError('token-invalid', 'the token holds characters that no token has');
  const root = baseUrl.href.replace(/\/+$/, '');

  const request = async (path: string, init: RequestInit & { duplex?: 'half' }): Promise<Response> => {
    try {
      return await fetch(`${root}${path}`, {
        ...init,
        headers: {
          ...init.headers,
          authorization: `Bearer ${token}`,
          'accept-language': speaker().language,
        },
      });
    } catch (cause) {
      const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
      const words = inner instanceof Error ? inner.message || inner.name : String(inner);
      throw new FleetError('registry-unreachable', `${root} does not answer (${words})`, { cause });
    }
  };

  const failure = async (response: Response, path: string): Promise<FleetError> => {
    const text = await response.text();
    try {
      const problem = problemSchema.parse(JSON.parse(text));
      if (isErrorCode(problem.code))
        return new FleetError(problem.code, problem.detail, { hint: problem.hint, rule: problem.rule });
      return new FleetError('registry-answer-invalid', `${problem.code}: ${problem.detail}`, {
        hint: problem.hint,
      });
    } catch (cause) {
      return new FleetError(
        'registry-answer-invalid',
        `${root}${path} answered ${response.status} without a problem document`,
        {
          cause,
        },
      );
    }
  };

  const parsed = async <S extends z.ZodType>(
    response: Response,
    path: string,
    schema: S,
  ): Promise<z.infer<S>> => {
    if (!response.ok) throw await failure(response, path);
    let body: unknown = null;
    if (response.status !== 204) {
      try {
        body = await response.json();
      } catch (cause) {
        throw new FleetError('registry-answer-invalid', `${root}${path} did not answer with JSON`, { cause });
      }
    }
    const checked = schema.safeParse(body);
    if (!checked.success) {
      throw new FleetError('registry-answer-invalid', `${root}${path}: ${describeIssues(checked.error)}`);
    }
    return checked.data;
  };

  return {
    baseUrl: root,
    async get(path, schema) {
      return parsed(await request(path, { method: 'GET' }), path, schema);
    },
    async send(method, path, body, schema) {
      const response = await request(path, {
        method,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
      return parsed(response, path, schema);
    },
    async bytes(path) {
      const response = await request(path, { method: 'GET' });
      if (response.status === 404) {
        await response.body?.cancel();
        return null;
      }
      if (!response.ok) throw await failure(response, path);
      return new Uint8Array(await response.arrayBuffer());
    },
    async *stream(path) {
      const response = await request(path, { method: 'GET' });
      if (!response.ok) throw await failure(response, path);
      const reader = response.body?.getReader();
      if (reader === undefined) return;
      try {
        for (;;) {
          const next = await reader.read();
          if (next.done) return;
          yield next.value;
        }
      } catch (cause) {
        if (cause instanceof FleetError) throw cause;
        throw new FleetError('registry-unreachable', `${root} broke off in the middle of ${path}`, { cause });
      } finally {
        await reader.cancel().catch((error: unknown) => {
          // The stream failed already; its error was thrown above.
          if (!(error instanceof Error)) throw error;
        });
      }
    },
    async exists(path) {
      const response = await request(path, { method: 'HEAD' });
      if (response.status === 404) return false;
      if (!response.ok) {
        // A HEAD answer has no body to explain itself: ask again with GET for the reason.
        throw await failure(await request(path, { method: 'GET' }), path);
      }
      return true;
    },
    async upload(path, body, bytes) {
      const response = await request(path, {
        method: 'PUT',
        headers: { 'content-type': 'application/octet-stream', 'content-length': String(bytes) },
        body,
        duplex: 'half',
      });
      if (!response.ok) throw await failure(response, path);
      await response.body?.cancel();
    },
  };
}
