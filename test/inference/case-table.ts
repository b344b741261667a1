// Why: each case four times: by ONNX Runtime itself, then through HTTP, host and child as JSON, as raw numbers and
// packed. What the runtime passes must pass; what it refuses or dies of must be a clean refusal. The table says so.
// Trusts: the data folder's expected values. Must never: skip a case silently or loosen a tolerance.

import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { encodeBinaryRequest, jsonLengthHeader, parseBinaryResponse } from '../../shared/wire/oip-binary.ts';
import {
  encodeInferRequest,
  type InferRequest,
  type InferResponse,
  parseInferResponse,
} from '../../shared/wire/oip-json.ts';
import { type CaseSet, type ComparedCase, casesOf, judge, type Outcome, runDirectly } from './direct.ts';
import { openStage, post, type Stage, startHttp } from './staging.ts';

const forms = ['JSON', 'binary', 'gzip'] as const;
type Form = (typeof forms)[number];

export interface TableRow {
  name: string;
  direct: Outcome;
  /** Absent where the form was not asked. */
  forms: Partial<Record<Form, Outcome>>;
}

const octets = 'application/octet-stream';

/** Sends a case in one form; the answer, or the refusal's code. */
async function ask(url: string, form: Form, one: ComparedCase): Promise<Outcome> {
  const named: InferRequest = {
    id: one.name,
    inputs: one.inputs,
    outputs: one.fetch.map((name) => ({ name })),
  };
  let body = encodeInferRequest(named);
  const headers: Record<string, string> = { 'accept-encoding': 'identity' };
  if (form === 'binary') {
    const message = encodeBinaryRequest({ ...named, parameters: { binary_data_output: true } });
    body = Buffer.concat(message.pieces);
    headers[jsonLengthHeader] = String(message.jsonBytes);
    headers['content-type'] = octets;
  }
  if (form === 'gzip') {
    body = gzipSync(body, { level: 1 });
    headers['content-encoding'] = 'gzip';
    headers['accept-encoding'] = 'gzip';
  }
  const { response, bytes } = await post(url, body, headers);
  if (response.status !== 200) {
    const code = response.headers.get('x-lepton-code') ?? '';
    const { error } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { error?: unknown };
    assert.ok(isErrorCode(code) && typeof error === 'string', `${one.name}: ${response.status} ${code}`);
    return { result: 'refused', detail: `${response.status} ${code}: ${error}` };
  }
  const jsonBytes = response.headers.get(jsonLengthHeader);
  assert.equal(jsonBytes !== null, form === 'binary', `${one.name}: ${form}`);
  assert.equal(response.headers.get('content-type'), form === 'binary' ? octets : 'application/json');
  const answer: Result<InferResponse> =
    jsonBytes === null ? parseInferResponse(bytes) : parseBinaryResponse(bytes, Number(jsonBytes));
  const { id, modelVersion, outputs } = unwrap(answer);
  assert.equal(id, one.name);
  assert.match(modelVersion, /^1\.0\.\d+$/);
  assert.equal(response.headers.get('x-lepton-release'), `test/case@${modelVersion}`);
  assert.deepEqual(
    outputs.map(({ name }) => name),
    one.fetch,
  );
  const difference = judge(one, outputs);
  return difference === null ? { result: 'passed', detail: '' } : { result: 'differs', detail: difference };
}

/** Outputs that cannot be fetched are excluded by name, as a publisher would after the first refusal. */
async function serve(stage: Stage, modelPath: string): Promise<Outcome | null> {
  let refused: Outcome = { result: 'refused', detail: '' };
  for (const excludeOutputs of [[], ['output_probability'], ['probabilities']]) {
    const release = stage.stage('case', modelPath, { excludeOutputs });
    const loaded = await stage.host.load(release);
    if (loaded.ok) {
      unwrap(await stage.host.activate('case', release.manifestSha256));
      return null;
    }
    const { code, detail } = loaded.refusal;
    if (refused.detail === '') refused = { result: 'refused', detail: `at load ${code}: ${detail}` };
    if (code !== 'model-output-not-tensor' && code !== 'model-invalid') break;
  }
  return refused;
}

/** Every case of a set in every form. `packed` says which cases are asked in gzip too. */
export async function runTable(set: CaseSet, packed: (index: number) => boolean): Promise<TableRow[]> {
  const stage = openStage();
  const http = await startHttp(stage);
  try {
    const direct = await runDirectly(set);
    const rows: TableRow[] = [];
    let modelPath = '';
    let refused: Outcome | null = null;
    for (const [index, one] of casesOf(set).entries()) {
      if (one.modelPath !== modelPath) {
        await stage.host.deactivate('case');
        refused = await serve(stage, one.modelPath);
        modelPath = one.modelPath;
      }
      const row: TableRow = {
        name: one.name,
        direct: direct[index] ?? { result: 'aborted', detail: 'not run' },
        forms: {},
      };
      for (const form of forms) {
        if (form === 'gzip' && !packed(index)) continue;
        row.forms[form] = refused ?? (await ask(`${http.url}/v2/models/case/infer`, form, one));
      }
      rows.push(row);
      assert.equal((await fetch(`${http.url}/v2/health/live`)).status, 200, `${one.name}: the agent lives`);
    }
    return rows;
  } finally {
    await http.close();
    await stage.close();
  }
}

const cell = (outcome: Outcome | undefined): string => (outcome?.result ?? '-').padEnd(8);

/** Rows of one batch as one line, where they all came out alike. */
function merged(rows: readonly TableRow[]): TableRow[] {
  const lines = new Map<string, { row: TableRow; count: number }>();
  for (const row of rows) {
    const results = [row.direct, row.forms.JSON, row.forms.binary].map((one) => one?.result);
    const key = `${row.name.replace(/\[\d+\]$/, '')} ${results.join()}`;
    const line = lines.get(key) ?? { row, count: 0 };
    line.count += 1;
    line.row = { ...line.row, forms: { ...row.forms, ...line.row.forms } };
    lines.set(key, line);
  }
  return [...lines.values()].map(({ row, count }) =>
    count === 1 ? row : { ...row, name: row.name.replace(/\[\d+\]$/, ` ×${count}`) },
  );
}

export function printTable(title: string, all: readonly TableRow[]): void {
  const rows = merged(all);
  const width = Math.max(...rows.map(({ name }) => name.length));
  const lines = rows.map(({ name, direct, forms: asked }) => {
    const cells = [direct, ...forms.map((form) => asked[form])].map(cell).join(' ');
    const why = [direct, ...forms.map((form) => asked[form])].find((one) => one && one.result !== 'passed');
    return `${name.padEnd(width)} ${cells} ${why?.detail.replace(/\s+/g, ' ').slice(0, 100) ?? ''}`.trimEnd();
  });
  const head = `${title.padEnd(width)} ${['direct', ...forms].map((one) => one.padEnd(8)).join(' ')}`;
  process.stdout.write(`${[head.trimEnd(), ...lines].join('\n')}\n`);
}

/** What passes directly passes in each form; what does not is refused, or differs in just the same way. */
export function assertTable(rows: readonly TableRow[]): void {
  const wrong = rows.flatMap(({ name, direct, forms: asked }) =>
    Object.entries(asked).flatMap(([form, outcome]) => {
      const right =
        direct.result === 'passed' || direct.result === 'differs'
          ? outcome.result === direct.result
          : outcome.result === 'refused';
      return right
        ? []
        : [`${name} as ${form}: ${outcome.result} (${outcome.detail}), directly ${direct.result}`];
    }),
  );
  assert.deepEqual(wrong, []);
}
