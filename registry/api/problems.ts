// Why: every refusal and fault of the HTTP API is one RFC 9457 problem document with a code and a remedy.
// Trusts: shared/kernel/codes.ts for statuses. Must never: show a stack, a path of this machine or a secret.

import type { Context } from 'hono';
import { HTTPException } from 'hono/http-exception';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { codes } from '../../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import type { Problem } from '../../shared/wire/http.ts';
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

export function problemOf(error: FleetError): Problem {
  const { http } = codes[error.code];
  return {
    type: `urn:lepton:problem:${error.code}`,
    title: error.code,
    status: http,
    // What a bug says may hold anything; it goes to the log, under the request's id.
    detail: error.code === 'internal' ? 'something went wrong inside the registry' : error.message,
    code: error.code,
    hint: error.hint,
    ...(error.rule === null ? {} : { rule: error.rule }),
  };
}

export function answerProblem(c: Context<ApiEnv>, error: FleetError): Response {
  const problem = problemOf(error);
  const headers: Record<string, string> = { 'content-type': 'application/problem+json' };
  if (problem.status === 401) headers['www-authenticate'] = 'Bearer realm="lepton"';
  return c.body(JSON.stringify(problem), problem.status as ContentfulStatusCode, headers);
}
