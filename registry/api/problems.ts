// Why: every refusal and fault of the HTTP API is one RFC 9457 problem document with a code and a remedy.
// Trusts: shared/kernel/codes.ts for statuses. Must never: show a stack, a path of this machine or a secret.

import type { Context } from 'hono';
import { HTTPException } from 'hono/http-exception';
import { parseAccept } from 'hono/utils/accept';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { speakerFor } from '../../shared/host/languages.ts';
import { codes } from '../../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import type { Problem } from '../../shared/wire/http.ts';
import { english, negotiate, type Speaker } from '../../shared/wire/languages.ts';
import type { ApiEnv } from './context.ts';

/** What was thrown, as a FleetError: Hono's own complaints about a request become `input-invalid`. */
export function apiError(thrown: unknown): FleetError {
  if (thrown instanceof HTTPException) {
    return new FleetError(thrown.status === 413 ? 'body-too-large' : 'input-invalid', thrown.message, {
      cause: thrown,
    });
  }
  return asFleetError(thrown);
}

/** `code` and `type` are the same in every language. */
export function problemOf(error: FleetError, { say, word }: Speaker = english): Problem {
  const { http } = codes[error.code];
  return {
    type: `urn:lepton:problem:${error.code}`,
    title: word(error.code),
    status: http,
    // What a bug says may hold anything; it goes to the log, under the request's id.
    detail: say(error.code === 'internal' ? 'something went wrong inside the registry' : error.message),
    code: error.code,
    hint: say(error.hint),
    ...(error.rule === null ? {} : { rule: error.rule }),
  };
}

/** A header can be thousands of characters; no browser names so many languages. */
const wishesMax = 32;

/** RFC 9110 §12.5.4; English where nothing else is wished or spoken. */
function speakerOfRequest(c: Context<ApiEnv>): Speaker {
  const wishes = parseAccept(c.req.header('accept-language') ?? '').slice(0, wishesMax);
  return speakerFor(negotiate(wishes.map(({ type, q }) => ({ tag: type, weight: q }))));
}

export function answerProblem(c: Context<ApiEnv>, error: FleetError): Response {
  const speaker = speakerOfRequest(c);
  const problem = problemOf(error, speaker);
  const headers: Record<string, string> = {
    'content-type': 'application/problem+json',
    'content-language': speaker.language,
    vary: 'Accept-Language',
  };
  if (problem.status === 401) headers['www-authenticate'] = 'Bearer realm="lepton"';
  return c.body(JSON.stringify(problem), problem.status as ContentfulStatusCode, headers);
}
