// Why: what becomes of a request for inference that the fast path reads: who may ask, where its body goes, its answer.
// Trusts: the fast path for the head. Must never: answer otherwise than the same request through node:http.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { jsonLengthHeader, readJsonLength } from '../../shared/wire/oip-binary.ts';
import type { Answer, RouteParts } from './answer.ts';
import type { FastPathOptions } from './fast-path.ts';
import { findModel, infer } from './infer-route.ts';
import { inferRoute } from './routes.ts';

/** Raw numbers of a smaller body are taken to the model faster all at once. */
const aheadBytesMin = 1024 * 1024;

/** `answerOf` makes an answer of a refusal and of a fault too. */
export function fastInference(
  parts: RouteParts,
  answerOf: (path: string, work: () => Promise<Result<Answer>>) => Promise<Answer>,
): Pick<FastPathOptions, 'takes' | 'answer' | 'gather' | 'ahead'> {
  const { inference } = parts;
  return {
    takes: ({ headers }) => !parts.closing() && parts.mayEnter(headers),
    answer: ({ head, body, ahead, departure, memory }) =>
      answerOf(head.path, async () => {
        const route = inferRoute(head.path);
        if (route === null) return refuse('not-found', 'no such path');
        const { headers } = head;
        const call = { headers, body: () => ok(body), departure: () => departure, ahead, memory };
        return infer(call, route.model, route.version, parts);
      }),
    gather: ({ path, headers, bodyBytes }) => {
      const route = inferRoute(path);
      const jsonBytes = readJsonLength(headers[jsonLengthHeader]);
      if (route === null || !jsonBytes.ok) return null;
      // Whoever has the name wrong need not send megabytes.
      if (!findModel(inference, route.model, route.version).ok) return null;
      return parts.body.gather(bodyBytes, jsonBytes.value ?? 0);
    },
    ahead: ({ path, headers }, whole) => {
      const route = inferRoute(path);
      const jsonBytes = readJsonLength(headers[jsonLengthHeader]);
      if (route === null || !jsonBytes.ok || jsonBytes.value === null) return null;
      const skipped = jsonBytes.value;
      const numbers = whole.subarray(skipped);
      if (numbers.length < aheadBytesMin) return null;
      const input = inference.ahead(route.model, route.version, numbers);
      return input === null ? null : { ready: (bytes) => input.ready(bytes - skipped), input };
    },
  };
}
