// Why: a backup is worth what was checked: every digest, both databases, the region and its roots.
// Trusts: nothing in the folder. Must never: call whole what lacks a byte, or change anything.

import { join } from 'node:path';
import { type BackupFolder, digestOfFile } from '../../shared/host/backup-folder.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { BackupManifest, KeptKeys } from '../../shared/wire/backup.ts';
import { readManifest } from './backups.ts';
import { factsOfCopy, faultsOf } from './facts.ts';
import { keptKeysDatabase, keptKeysFolder, readKeptKeys } from './kept-keys.ts';
import { registryCopy } from './write.ts';

export interface VerifiedBackup {
  manifest: BackupManifest;
  path: string;
  /** Empty where it is whole. */
  problems: string[];
  keys: KeptKeys | null;
  /** `absent`: left out, or deleted since. `expired`: there, and not to be used any more. */
  telemetryKeys: 'usable' | 'sealed' | 'expired' | 'absent';
}

/** Fault: `backup-malformed` where there is no backup of that name. */
export async function verifyBackup(
  folder: BackupFolder,
  name: string,
  options: { nowMs: number; onTotal(bytes: number): void; onRead(bytes: number): void },
): Promise<VerifiedBackup> {
  const manifest = await readManifest(folder, name);
  if (manifest === null)
    throw new FleetError('backup-malformed', `${join(folder.folder, name)} holds no backup.json of a backup`);
  const at = (path: string): string => join(folder.folder, name, path);
  const problems: string[] = [];
  options.onTotal(manifest.bytes);
  const present = new Set<string>();
  for (const file of manifest.files) {
    const found = await digestOfFile(at(file.path), options.onRead);
    if (found !== null) present.add(file.path);
    const differs = found !== null && (found.bytes !== file.bytes || found.sha256 !== file.sha256);
    if (found === null) problems.push(`${file.path} is missing`);
    else if (differs)
      problems.push(`${file.path} is not what was written: ${found.bytes} bytes of SHA-256 ${found.sha256}`);
  }
  const keys = await verifiedKeys(folder, name, problems);

  const paths = new Set(manifest.files.map(({ path }) => path));
  if (!paths.has(registryCopy)) problems.push(`${registryCopy} is not listed`);
  else if (present.has(registryCopy)) problems.push(...(await registryProblems(at(registryCopy), manifest)));
  return { manifest, path: at('.'), problems, keys, telemetryKeys: keysState(manifest, keys, options.nowMs) };
}

/** Null where they were left out, or deleted since: when they had lived their days, or by who wanted them gone. */
async function verifiedKeys(
  folder: BackupFolder,
  name: string,
  problems: string[],
): Promise<KeptKeys | null> {
  try {
    const kept = await readKeptKeys(folder, name);
    if (kept === null) return null;
    const path = folder.path(name, `${keptKeysFolder}/${keptKeysDatabase}`);
    const found = await digestOfFile(path);
    const isWhole = found !== null && found.bytes === kept.file.bytes && found.sha256 === kept.file.sha256;
    if (!isWhole) problems.push(`${keptKeysFolder}/${keptKeysDatabase} is not what was written`);
    else problems.push(...(await soundness(path, keptKeysDatabase)));
    return kept;
  } catch (thrown) {
    if (!(thrown instanceof FleetError)) throw thrown;
    problems.push(thrown.message);
    return null;
  }
}

function keysState(
  { telemetryKeys, seal }: BackupManifest,
  kept: KeptKeys | null,
  nowMs: number,
): VerifiedBackup['telemetryKeys'] {
  if (telemetryKeys === null || kept === null) return 'absent';
  if (telemetryKeys.expiresAtMs <= nowMs) return 'expired';
  return seal === null ? 'usable' : 'sealed';
}

/** What cannot even be opened is a problem like any other. */
async function soundness(path: string, name: string): Promise<string[]> {
  try {
    return (await faultsOf(path)).map((words) => `${name}: ${words}`);
  } catch (thrown) {
    if (thrown instanceof FleetError) return [`${name}: ${thrown.code}: ${thrown.message}`];
    throw thrown;
  }
}

async function registryProblems(path: string, manifest: BackupManifest): Promise<string[]> {
  const problems = await soundness(path, registryCopy);
  if (problems.length > 0) return problems;
  try {
    const facts = await factsOfCopy(path);
    for (const name of ['region', 'incarnation', 'schema'] as const)
      if (facts[name] !== manifest[name])
        problems.push(`${registryCopy} is of ${name} ${facts[name]}, backup.json of ${manifest[name]}`);
    for (const name of ['catalogue', 'region'] as const)
      if (facts.roots[name].sha256 !== manifest.roots[name].sha256)
        problems.push(`the root of the ${name} in ${registryCopy} is not the one of backup.json`);
  } catch (thrown) {
    if (!(thrown instanceof FleetError)) throw thrown;
    problems.push(`${registryCopy}: ${thrown.code}: ${thrown.message}`);
  }
  return problems;
}
