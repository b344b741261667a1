// Why: a model file or folder becomes a release: every file by digest, a manifest that lists them.
// Trusts: nothing it reads; the model is parsed and admitted before anything is sent.
// Must never: read outside the folder it was given, except for files that were named by flags.

import { createReadStream, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';
import type { z } from 'zod';
import { sha256Hex, sha256Stream } from '../../shared/crypto/digests.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import {
  type FileRole,
  type ReleaseFile,
  type ReleaseName,
  releasePathPattern,
} from '../../shared/kernel/releases.ts';
import { admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { promisedMemory } from '../../shared/onnx/memory-bounds.ts';
import { readModel } from '../../shared/onnx/model.ts';
import { goldenDataFiles, parseGolden } from '../../shared/wire/golden.ts';
import { type Manifest, manifestOverridesSchema, manifestSchema } from '../../shared/wire/manifest.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import { parseProfile } from '../../shared/wire/profile.ts';
import { readYamlFile } from '../policy/yaml-file.ts';

export interface ReleaseSource {
  /** The .onnx file, or a folder with exactly one. */
  path: string;
  release: ReleaseName;
  golden?: string;
  profile?: string;
  card?: string;
  manifest?: string;
}

export interface BuiltRelease {
  manifest: Manifest;
  manifestBytes: Uint8Array;
  manifestSha256: string;
  /** The manifest's files with where they stand on this machine. */
  files: (ReleaseFile & { localPath: string })[];
  goldenCases: number;
}

function readInput(path: string, what: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(path));
  } catch (cause) {
    throw new FleetError(
      'input-invalid',
      `cannot read the ${what} ${path}: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        cause,
      },
    );
  }
}

async function digestFile(path: string): Promise<{ sha256: string; bytes: number }> {
  const hash = sha256Stream();
  let bytes = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { sha256: hash.hex(), bytes };
}

/** The model file, and the folder whose files may belong to the release. */
function findModel(path: string): { model: string; folder: string; isFolder: boolean } {
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch (cause) {
    throw new FleetError('input-invalid', `there is no file or folder ${path}`, {
      cause,
      hint: 'give the .onnx file or its folder',
    });
  }
  if (!isFolder) return { model: path, folder: dirname(path), isFolder };
  const models = readdirSync(path).filter((name) => name.endsWith('.onnx'));
  const [only] = models;
  if (only === undefined || models.length > 1) {
    throw new FleetError(
      'input-invalid',
      `${path} holds ${models.length} .onnx files; a release has exactly one`,
      {
        hint: 'give the .onnx file itself',
      },
    );
  }
  return { model: join(path, only), folder: path, isFolder };
}

function beside(folder: string, name: string, what: string): string {
  const path = normalize(name);
  if (!releasePathPattern.test(name) || path.startsWith('..')) {
    throw new FleetError('input-invalid', `${what} ${JSON.stringify(name)} leaves the release's folder`);
  }
  return join(folder, path);
}

function fileNamed(
  folder: string,
  isFolder: boolean,
  flag: string | undefined,
  name: string,
): string | undefined {
  if (flag !== undefined) return flag;
  return isFolder && readdirSync(folder).includes(name) ? join(folder, name) : undefined;
}

/** What a person says of a release beside its files: JSON or YAML by a flag, else `lepton.json` or `manifest.yaml`. */
function overridesOf(folder: string, isFolder: boolean, flag: string | undefined): Partial<Manifest> {
  const [json, yaml] = ['lepton.json', 'manifest.yaml'].map((name) =>
    fileNamed(folder, isFolder, flag, name),
  );
  if (json !== undefined && yaml !== undefined && json !== yaml)
    throw new FleetError('manifest-malformed', `${folder} holds lepton.json and manifest.yaml; keep one`);
  const file = json ?? yaml;
  if (file === undefined) return {};
  const text = new TextDecoder().decode(readInput(file, 'manifest'));
  const overrides = /\.ya?ml$/.test(file) ? yamlOverrides(file, text) : jsonOverrides(file, text);
  return Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined));
}

function yamlOverrides(file: string, text: string): z.infer<typeof manifestOverridesSchema> {
  const read = readYamlFile(text, manifestOverridesSchema, 'manifest-malformed');
  if (!read.ok) throw new FleetError(read.refusal.code, `${file}: ${read.refusal.detail}`);
  return read.value.data;
}

function jsonOverrides(file: string, text: string): z.infer<typeof manifestOverridesSchema> {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    throw new FleetError('manifest-malformed', `${file} is not JSON: ${String(cause)}`, { cause });
  }
  const parsed = manifestOverridesSchema.safeParse(body);
  if (!parsed.success) throw new FleetError('manifest-malformed', `${file}: ${describeIssues(parsed.error)}`);
  return parsed.data;
}

/** Checks everything about a release that can be known on this machine. Throws the code of what is wrong. */
export async function buildRelease(source: ReleaseSource): Promise<BuiltRelease> {
  const { model, folder, isFolder } = findModel(source.path);
  const modelBytes = readInput(model, 'model');

  const overrides = overridesOf(folder, isFolder, source.manifest);

  const files: (ReleaseFile & { localPath: string })[] = [];
  const add = async (localPath: string, path: string, role: FileRole): Promise<void> => {
    if (files.some((file) => file.path === path))
      throw new FleetError('input-invalid', `two files of the release are called ${path}`);
    if (!releasePathPattern.test(path)) {
      throw new FleetError(
        'input-invalid',
        `the file name ${JSON.stringify(path)} cannot stand in a release`,
        {
          hint: 'use letters, digits, dots, dashes and underscores',
        },
      );
    }
    files.push({ path, role, ...(await digestFile(localPath)), localPath });
  };

  await add(model, basename(model), 'model');
  const parsedModel = unwrap(readModel(modelBytes));
  const external = new Map<string, number>();
  for (const name of new Set(parsedModel.externalData.map((part) => part.path))) {
    const localPath = beside(folder, name, 'external data');
    const there = statSync(localPath, { throwIfNoEntry: false });
    if (there?.isFile() !== true) continue;
    external.set(name, there.size);
    await add(localPath, name, 'external-data');
  }
  const admitted = unwrap(
    admitModel(modelBytes, {
      excludeOutputs: overrides.excludeOutputs ?? [],
      externalFiles: external,
      opsetMax: opsetMaxDefault,
      memoryBounds: [promisedMemory(overrides)],
    }),
  );

  let goldenCases = 0;
  const golden = fileNamed(folder, isFolder, source.golden, 'golden.json');
  if (golden !== undefined) {
    await add(golden, 'golden.json', 'golden');
    const goldenBytes = readInput(golden, 'golden file');
    const cases = unwrap(
      parseGolden(goldenBytes, (name) => {
        const localPath = beside(dirname(golden), name, 'golden data');
        if (statSync(localPath, { throwIfNoEntry: false })?.isFile() !== true) return null;
        return new Uint8Array(readFileSync(localPath));
      }),
    );
    goldenCases = cases.length;
    for (const name of unwrap(goldenDataFiles(goldenBytes)))
      await add(join(dirname(golden), name), name, 'golden-data');
  }
  const profile = fileNamed(folder, isFolder, source.profile, 'profile.json');
  if (profile !== undefined) {
    unwrap(parseProfile(readInput(profile, 'profile')));
    await add(profile, 'profile.json', 'profile');
  }
  const card = fileNamed(folder, isFolder, source.card, 'card.md');
  if (card !== undefined) await add(card, 'card.md', 'card');

  const checked = manifestSchema.safeParse({
    schemaVersion: 1,
    name: `${source.release.namespace}/${source.release.name}`,
    version: source.release.version,
    files: files.map(({ path, role, sha256, bytes }) => ({ path, role, sha256, bytes })),
    ...overrides,
    requires: { opset: admitted.opset, ...overrides.requires },
    inputs: admitted.inputs,
    outputs: admitted.outputs,
  });
  if (!checked.success) throw new FleetError('manifest-malformed', describeIssues(checked.error));
  const manifestBytes = new TextEncoder().encode(`${JSON.stringify(checked.data, null, 2)}\n`);
  return {
    manifest: checked.data,
    manifestBytes,
    manifestSha256: sha256Hex(manifestBytes),
    files,
    goldenCases,
  };
}
