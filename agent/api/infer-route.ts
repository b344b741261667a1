// Why: one inference request over HTTP: body to tensors, tensors to the host, the answer back to bytes.
// Trusts: nothing in the request. Must never: ignore an option that would change the answer's meaning;
// what cannot be served is refused with 501.

import type { IncomingMessage } from 'node:http';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  encodeInferResponse,
  type InferRequest,
  type OipParameters,
  parseInferRequest,
} from '../../shared/wire/oip-json.ts';
import type { InferenceHost, ServedModel } from '../inference/host.ts';
import type { Answer, RouteParts } from './answer.ts';

export function findModel(
  inference: InferenceHost,
  name: string,
  version: string | null,
): Result<ServedModel> {
  const model = inference.models().find(({ as }) => as === name);
  if (model === undefined)
    return refuse('infer-unknown-model', `no model ${JSON.stringify(name)} is served here`);
  if (version !== null && version !== model.version) {
    return refuse('infer-unknown-model', `${name} is served in version ${model.version} only`);
  }
  return ok(model);
}

/** Parameters that would change what the answer means, and that this version does not serve. */
const unsupportedParameters = ['binary_data', 'binary_data_output', 'classification', 'shared_memory_region'];
const sequenceParameters = ['sequence_id', 'sequence_start', 'sequence_end'];

/** `sequence_id: 0`, `binary_data: false` and their like ask for nothing. */
function asksForSomething(parameters: OipParameters | undefined, name: string): boolean {
  const value = parameters?.[name];
  return value !== undefined && value !== false && value !== 0 && value !== '';
}

function unsupportedOption(request: InferRequest): string | null {
  for (const name of [...unsupportedParameters, ...sequenceParameters]) {
    if (asksForSomething(request.parameters, name)) return name;
    for (const output of request.outputs ?? []) {
      if (asksForSomething(output.parameters, name)) return name;
    }
  }
  return null;
}

export async function infer(
  request: IncomingMessage,
  name: string,
  version: string | null,
  parts: RouteParts,
): Promise<Result<Answer>> {
  if (parts.closing()) return refuse('infer-not-ready', 'the agent is stopping');
  // Before the body: whoever has the name wrong need not send megabytes.
  const model = findModel(parts.inference, name, version);
  if (!model.ok) return model;
  if (request.headers['inference-header-content-length'] !== undefined) {
    return refuse('infer-unsupported', 'binary tensor data; send JSON');
  }
  const body = await parts.body.read(request);
  if (!body.ok) return body;
  const parsed = parseInferRequest(body.value.bytes);
  body.value.done();
  if (!parsed.ok) return parsed;
  const { id, inputs, outputs } = parsed.value;
  const unsupported = unsupportedOption(parsed.value);
  if (unsupported !== null) return refuse('infer-unsupported', `the parameter ${unsupported} is not served`);
  const answered = await parts.inference.infer(name, version, {
    inputs,
    outputs: outputs?.map((output) => output.name),
  });
  if (!answered.ok) return answered;
  const response = encodeInferResponse({
    modelName: name,
    modelVersion: answered.value.version,
    ...(id === undefined ? {} : { id }),
    outputs: answered.value.outputs,
  });
  return ok({ status: 200, body: response });
}
