// Why: the steps that every end-to-end test takes: push a release, roll it out, ask the device.
// Trusts: processes.ts. Must never: go past the CLI and the public HTTP APIs.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { unwrap } from '../../shared/kernel/errors.ts';
import { compareGolden, type DataFile, writeGolden } from '../../shared/wire/golden.ts';
import type { DeviceView, FleetEvent } from '../../shared/wire/http.ts';
import { encodeInferRequest, type InferResponse, parseInferResponse } from '../../shared/wire/oip-json.ts';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { asGolden, type ModelCase } from './cases.ts';
import type { LeptonRunner, Workplace } from './processes.ts';

/** A registry as the CLI reaches it, in another process or in this one. */
export interface Reachable {
  lepton: LeptonRunner;
}

/** Tensors above this size go to files beside the golden file, so that both forms are delivered. */
const inlineBytesMax = 65_536;

/** A claim file for this many devices. */
export async function makeClaim(
  place: Workplace,
  registry: Reachable,
  name = 'claim',
  extra: string[] = [],
): Promise<string> {
  const file = place.path(`${name}.json`);
  await registry.lepton(['claims', 'create', '--out', file, ...extra]);
  return file;
}

/** Writes the case as a golden file with its data files; the golden file's path. */
export function writeGoldenFolder(place: Workplace, model: ModelCase): string {
  const dataFiles: DataFile[] = [];
  const path = place.path('golden', model.name.replaceAll('/', '_'), 'golden.json');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, writeGolden([asGolden(model)], { dataFiles, inlineBytesMax }));
  for (const file of dataFiles) writeFileSync(`${dirname(path)}/${file.file}`, file.bytes);
  return path;
}

/** A `--manifest` file with these fields; its path. */
export function writeOverrides(place: Workplace, overrides: object): string {
  const file = place.path('manifest-overrides.json');
  writeFileSync(file, JSON.stringify(overrides));
  return file;
}

export async function pushModel(
  registry: Reachable,
  modelPath: string,
  release: string,
  extra: string[] = [],
): Promise<void> {
  const [name = '', version = ''] = release.split('@');
  await registry.lepton(['models', 'push', modelPath, '--name', name, '--version', version, ...extra]);
}

/** Starts a rollout with one wave of everything; its id. */
export async function startRollout(
  place: Workplace,
  registry: Reachable,
  release: string,
  spec: object = {},
): Promise<string> {
  const name = release.replace(/^[^/]*\//, '').replace(/[^a-z0-9]+/g, '-');
  const file = place.path(`rollout-${name}.json`);
  writeFileSync(
    file,
    JSON.stringify({
      apiVersion: 'lepton/v1',
      kind: 'Rollout',
      metadata: { name },
      spec: { release, waves: [{ percent: 100 }], ...spec },
    }),
  );
  const started = await registry.lepton(['rollout', 'start', '-f', file, '--json']);
  return (started.json() as { id: string }).id;
}

/** Starts a rollout and waits for its end by `rollout watch`. */
export async function rollOut(
  place: Workplace,
  registry: Reachable,
  release: string,
  expectedExit = 0,
): Promise<RolloutStatus> {
  const id = await startRollout(place, registry, release);
  await registry.lepton(['rollout', 'watch', id], expectedExit);
  return (await registry.lepton(['rollout', 'status', id, '--json'])).json() as RolloutStatus;
}

export async function showDevice(registry: Reachable, id: string): Promise<DeviceView> {
  return (await registry.lepton(['devices', 'show', id, '--json'])).json() as DeviceView;
}

export async function fleetEvents(registry: Reachable, subject?: string): Promise<FleetEvent[]> {
  const only = subject === undefined ? [] : ['--device', subject];
  return (await registry.lepton(['events', '--json', ...only])).json() as FleetEvent[];
}

/** One inference over the agent's HTTP API; fails the test on any other status than 200. */
export async function infer(http: string, model: string, inputs: Tensor[]): Promise<InferResponse> {
  const response = await fetch(`${http}/v2/models/${model}/infer`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: encodeInferRequest({ inputs }),
  });
  const body = new Uint8Array(await response.arrayBuffer());
  assert.equal(response.status, 200, new TextDecoder().decode(body.subarray(0, 2_000)));
  return unwrap(parseInferResponse(body));
}

/** Runs a case through the agent and compares with what others computed. */
export async function checkCase(http: string, model: string, expected: ModelCase): Promise<void> {
  const response = await infer(http, model, expected.inputs);
  const compared = compareGolden(expected.expected, response.outputs, expected.rtol, expected.atol);
  assert.equal(compared.firstFailure, null, `${model}: ${expected.name}`);
  assert.equal(compared.passed, true);
}
