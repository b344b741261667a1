// Why: Open Inference Protocol V2 bodies between JSON bytes and tensors, in both directions.
// Trusts: nothing; what comes out is checked and complete. Must never: accept a request in part, or
// answer a malformed one. How numbers, NaN and nesting are read stands in tensor-json.ts.

import type { ErrorCode } from '../kernel/codes.ts';
import type { Result } from '../kernel/result.ts';
import { type JsonReader, readWhole } from './json-reader.ts';
import {
  type DataElsewhere,
  joinParts,
  type OipParameters,
  readName,
  readParameters,
  readTensors,
  tensorsMax,
  tensorsParts,
} from './tensor-json.ts';
import type { Tensor } from './tensors.ts';

export type { OipParameters };

export interface InferRequest {
  id?: string;
  parameters?: OipParameters;
  inputs: Tensor[];
  /** The outputs asked for, in this order; absent: all. */
  outputs?: { name: string; parameters?: OipParameters }[];
}

export interface InferResponse {
  modelName: string;
  modelVersion: string;
  id?: string;
  parameters?: OipParameters;
  outputs: Tensor[];
}

/**
 * Parses and checks an inference request. Data may be flat or nested as its shape; integers are
 * exact; FP16 is given as numbers; BOOL as true/false or 1/0. Refusal: `infer-invalid`.
 */
export function parseInferRequest(body: Uint8Array): Result<InferRequest> {
  return readWhole(body, 'infer-invalid', { bareNonFinite: false }, (reader) =>
    readInferRequest(reader, null),
  );
}

/** Parses an inference response, as a client. Refusal: `code`. */
export function parseInferResponse(
  body: Uint8Array,
  code: ErrorCode = 'infer-invalid',
): Result<InferResponse> {
  return readWhole(body, code, { bareNonFinite: false }, (reader) => readNamedResponse(reader, null));
}

export function readNamedResponse(reader: JsonReader, elsewhere: DataElsewhere): InferResponse {
  const response = readInferResponse(reader, elsewhere);
  if (response.modelName === '') reader.fail('model_name is missing');
  return response;
}

export function readInferRequest(reader: JsonReader, elsewhere: DataElsewhere): InferRequest {
  const request: InferRequest = { inputs: [] };
  let given = false;
  reader.object((key) => {
    if (key === 'id') request.id = readName(reader, 'id');
    else if (key === 'parameters') request.parameters = readParameters(reader);
    else if (key === 'inputs') {
      given = true;
      request.inputs = readTensors(reader, 'input', elsewhere);
    } else if (key === 'outputs') request.outputs = readRequestedOutputs(reader);
    else reader.skip();
  });
  if (!given) reader.fail('inputs is missing');
  return request;
}

export function readInferResponse(reader: JsonReader, elsewhere: DataElsewhere): InferResponse {
  const response: InferResponse = { modelName: '', modelVersion: '', outputs: [] };
  let given = false;
  reader.object((key) => {
    if (key === 'model_name') response.modelName = readName(reader, key);
    else if (key === 'model_version') response.modelVersion = readName(reader, key);
    else if (key === 'id') response.id = readName(reader, key);
    else if (key === 'parameters') response.parameters = readParameters(reader);
    else if (key === 'outputs') {
      given = true;
      response.outputs = readTensors(reader, 'output', elsewhere);
    } else reader.skip();
  });
  if (!given) reader.fail('outputs is missing');
  return response;
}

function readRequestedOutputs(reader: JsonReader): { name: string; parameters?: OipParameters }[] {
  const outputs: { name: string; parameters?: OipParameters }[] = [];
  reader.list((index) => {
    if (index === tensorsMax) reader.fail(`more than ${tensorsMax} outputs`);
    const output: { name: string; parameters?: OipParameters } = { name: '' };
    reader.object((key) => {
      if (key === 'name') output.name = readName(reader, `outputs.${index}.name`);
      else if (key === 'parameters') output.parameters = readParameters(reader);
      else reader.skip();
    });
    if (output.name === '') reader.fail(`outputs.${index}: name is missing`);
    if (outputs.some((other) => other.name === output.name))
      reader.fail(`the output ${output.name} stands twice`);
    outputs.push(output);
  });
  return outputs;
}

/** What stands before the outputs of a response. */
export function responseHead(response: InferResponse): string {
  const id = response.id === undefined ? '' : `,"id":${JSON.stringify(response.id)}`;
  const parameters =
    response.parameters === undefined ? '' : `,"parameters":${JSON.stringify(response.parameters)}`;
  const head = `{"model_name":${JSON.stringify(response.modelName)},"model_version":${JSON.stringify(response.modelVersion)}`;
  return `${head}${id}${parameters},"outputs":[`;
}

/** OIP inference response. Integers are exact literals; see tensor-json.ts for NaN. */
export function encodeInferResponse(response: InferResponse): Uint8Array {
  return joinParts([responseHead(response), ...tensorsParts(response.outputs), ']}']);
}

/** What stands before and behind the inputs of a request. */
export function requestFrame(request: InferRequest): { head: string; tail: string } {
  const id = request.id === undefined ? '' : `"id":${JSON.stringify(request.id)},`;
  const parameters =
    request.parameters === undefined ? '' : `"parameters":${JSON.stringify(request.parameters)},`;
  const outputs = request.outputs === undefined ? '' : `,"outputs":${JSON.stringify(request.outputs)}`;
  return { head: `{${id}${parameters}"inputs":[`, tail: `]${outputs}}` };
}

/** OIP inference request, for clients, tests and golden files. */
export function encodeInferRequest(request: InferRequest): Uint8Array {
  const { head, tail } = requestFrame(request);
  return joinParts([head, ...tensorsParts(request.inputs), tail]);
}
