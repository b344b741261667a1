// Why: one inference request over HTTP: body to tensors, tensors to the host, the answer back to bytes.
// Trusts: nothing in the request. Must never: ignore an option that would change the answer's meaning;
// what cannot be served is refused with 501.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  binaryHead,
  binaryOutputs,
  encodeBinaryResponse,
  type IsBinary,
  jsonLengthHeader,
  parseBinaryRequest,
  parseRawInput,
  readJsonLength,
  repeatedRequest,
} from '../../shared/wire/oip-binary.ts';
import {
  encodeInferResponse,
  type InferRequest,
  type InferResponse,
  type OipParameters,
  parseInferRequest,
} from '../../shared/wire/oip-json.ts';
import type { InferAnswer, InferenceHost, ServedModel } from '../inference/host.ts';
import { isStateful } from '../inference/recipe.ts';
import type { Answer, Call, ClientMemory, RouteParts } from './answer.ts';

export function findModel(
  inference: InferenceHost,
  name: string,
  version: string | null,
): Result<ServedModel> {
  const model = inference.model(name);
  if (model === null) return refuse('infer-unknown-model', `no model ${JSON.stringify(name)} is served here`);
  if (version !== null && version !== model.version) {
    return refuse('infer-unknown-model', `${name} is served in version ${model.version} only`);
  }
  return ok(model);
}

/** Parameters that would change what the answer means, and that this version does not serve. */
const unsupportedParameters = ['classification', 'shared_memory_region'];

/** `classification: 0`, `sequence_id: ""` and their like ask for nothing. */
function asksForSomething(parameters: OipParameters | undefined, name: string): boolean {
  const value = parameters?.[name];
  return value !== undefined && value !== false && value !== 0 && value !== '';
}

/** What the parameters of a request ask for, in order: whether it can be served, and whether it makes sense. */
function checkOptions(request: InferRequest): Result<void> {
  const { parameters, outputs = [] } = request;
  if (parameters === undefined && outputs.length === 0) return ok();
  for (const name of unsupportedParameters) {
    if ([request, ...outputs].some((one) => asksForSomething(one.parameters, name)))
      return refuse('infer-unsupported', `the parameter ${name} is not served`);
  }
  const flags: [string, string | number | boolean | undefined][] = [
    ['binary_data_output', parameters?.['binary_data_output']],
    ...outputs.map((one): [string, string | number | boolean | undefined] => [
      `binary_data of ${one.name}`,
      one.parameters?.['binary_data'],
    ]),
  ];
  const odd = flags.find(([, value]) => value !== undefined && typeof value !== 'boolean');
  return odd === undefined ? ok() : refuse('infer-invalid', `${odd[0]} must be true or false`);
}

const sequenceParameters = ['sequence_id', 'sequence_start', 'sequence_end'];

/** Whether a request belongs to a sequence, whose state would be kept here between requests. */
export function isSequence(parameters: OipParameters | undefined): boolean {
  return parameters !== undefined && sequenceParameters.some((name) => asksForSomething(parameters, name));
}

/** Triton's parameters: an id (a number or a string), and whether its sequence begins or ends here. */
function sequenceOf(
  parameters: OipParameters | undefined,
): Result<{ id: string; start: boolean; end: boolean }> {
  const { sequence_id: id, sequence_start: start = false, sequence_end: end = false } = parameters ?? {};
  const numbered = typeof id === 'number' && Number.isSafeInteger(id) && id > 0;
  const named = typeof id === 'string' && id !== '' && id.length <= 128;
  if (!numbered && !named)
    return refuse('infer-invalid', 'sequence_id must be a number above 0, or a text of up to 128 characters');
  if (typeof start !== 'boolean' || typeof end !== 'boolean')
    return refuse('infer-invalid', 'sequence_start and sequence_end must be true or false');
  return ok({ id: `${typeof id} ${id}`, start, end });
}

/**
 * How long the client wants to wait: the parameter `timeout` (microseconds) or the header `x-lepton-timeout-ms`, the
 * shorter where both are given. Undefined: the host's own deadline.
 */
function deadlineOf({ headers }: Call, parameters: OipParameters | undefined): Result<number | undefined> {
  const timeout = parameters?.['timeout'];
  if (timeout !== undefined && !(typeof timeout === 'number' && timeout >= 0))
    return refuse('infer-invalid', 'timeout must be a number of microseconds');
  // Zero is the protocol's "none given".
  const inBodyMs = timeout === undefined || timeout === 0 ? undefined : timeout / 1_000;
  const header = headers['x-lepton-timeout-ms'];
  if (header === undefined) return ok(inBodyMs);
  if (typeof header !== 'string' || !/^[1-9]\d{0,8}$/.test(header))
    return refuse('infer-invalid', 'x-lepton-timeout-ms must be a whole number of at least 1');
  return ok(Math.min(Number(header), inBodyMs ?? Number.POSITIVE_INFINITY));
}

interface Asked {
  request: InferRequest;
  isBinary: IsBinary;
}

/** `jsonBytes` is the value of `Inference-Header-Content-Length`, null where the body is JSON alone. */
function readRequest(
  bytes: Uint8Array,
  jsonBytes: number | null,
  model: ServedModel,
  memory: ClientMemory | undefined,
): Result<Asked> {
  if (jsonBytes === 0) {
    const input = parseRawInput(bytes, model.inputs);
    // Who sends no JSON has no place to ask for it: all outputs come in binary form.
    return input.ok ? ok({ request: { inputs: [input.value] }, isBinary: () => true }) : input;
  }
  const last = memory?.last ?? null;
  if (last !== null && jsonBytes !== null) {
    const request = repeatedRequest(last.head, bytes, jsonBytes);
    if (request !== null) return ok({ request, isBinary: last.isBinary });
  }
  const parsed = jsonBytes === null ? parseInferRequest(bytes) : parseBinaryRequest(bytes, jsonBytes);
  if (!parsed.ok) return parsed;
  const request = parsed.value;
  const options = checkOptions(request);
  if (!options.ok) return options;
  const isBinary = binaryOutputs(request);
  const head = memory === undefined || jsonBytes === null ? null : binaryHead(bytes, jsonBytes, request);
  if (memory !== undefined && head !== null) memory.last = { head, isBinary };
  return ok({ request, isBinary });
}

function answerOf(name: string, id: string | undefined, answer: InferAnswer, isBinary: IsBinary): Answer {
  const response: InferResponse = {
    modelName: name,
    modelVersion: answer.version,
    ...(id === undefined ? {} : { id }),
    outputs: answer.outputs,
  };
  const release = { 'x-lepton-release': answer.releaseId };
  if (!answer.outputs.some((output) => isBinary(output.name)))
    return { status: 200, body: encodeInferResponse(response), headers: release };
  const message = encodeBinaryResponse(response, isBinary);
  const headers = {
    ...release,
    'content-type': 'application/octet-stream',
    [jsonLengthHeader]: String(message.jsonBytes),
  };
  return { status: 200, body: message.pieces, headers };
}

export async function infer(
  call: Call,
  name: string,
  version: string | null,
  parts: RouteParts,
): Promise<Result<Answer>> {
  if (parts.closing()) return refuse('infer-not-ready', 'the agent is stopping');
  // Before the body: whoever has the name wrong need not send megabytes.
  const model = findModel(parts.inference, name, version);
  if (!model.ok) return model;
  const jsonBytes = readJsonLength(call.headers[jsonLengthHeader]);
  if (!jsonBytes.ok) return jsonBytes;
  const body = await call.body(jsonBytes.value ?? 0);
  if (!body.ok) return body;
  try {
    const asked = readRequest(body.value.bytes, jsonBytes.value, model.value, call.memory);
    if (!asked.ok) return asked;
    const { id, parameters, inputs, outputs } = asked.value.request;
    if (isSequence(parameters)) {
      if (!isStateful(model.value.recipe))
        return refuse('infer-unsupported', `${name} keeps no state, so it has no sequences`);
      const sequence = sequenceOf(parameters);
      if (!sequence.ok) return sequence;
      const wanted = outputs?.map((output) => output.name);
      const stepped = await parts.sequences.run(model.value, { ...sequence.value, inputs, outputs: wanted });
      return stepped.ok ? ok(answerOf(name, id, stepped.value, asked.value.isBinary)) : stepped;
    }
    const deadlineMs = deadlineOf(call, parameters);
    if (!deadlineMs.ok) return deadlineMs;
    const answered = await parts.inference.infer(name, version, {
      inputs,
      outputs: outputs?.map((output) => output.name),
      deadlineMs: deadlineMs.value,
      requestId: id,
      signal: call.departure(),
      ahead: call.ahead,
    });
    return answered.ok ? ok(answerOf(name, id, answered.value, asked.value.isBinary)) : answered;
  } finally {
    call.ahead?.cancel();
    body.value.done();
  }
}
