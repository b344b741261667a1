// Why: what upload attacks are made of: the row itself, the registry that all share, honest pieces to change.
// Trusts: upload-world.ts for honest uploads. Must never: change more than the one thing that a row is about.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { TargetEntry } from '../../shared/trust/tuf/repository.ts';
import { publisherKey } from '../registry-core/support.ts';
import { openUploadWorld, type Publisher, type UploadWorld } from './upload-world.ts';

export interface UploadCase {
  id: string;
  group: 'upload';
  /** One line. */
  attack: string;
  code: ErrorCode;
  /** What the registry answered: a code, or `accepted`. */
  run(): Promise<string>;
}

let opened: Promise<UploadWorld> | null = null;

/** The registry that all cases share; opened by the first one that runs. */
export function uploadWorld(): Promise<UploadWorld> {
  opened ??= openUploadWorld();
  return opened;
}

/** Ends that registry; a case that runs later opens another. */
export async function closeUploadWorld(): Promise<void> {
  const world = opened;
  opened = null;
  await (await world)?.close();
}

type Attempt = (publisher: Publisher, world: UploadWorld) => Promise<string>;

/** One attack against a namespace of its own. */
export const attack = (
  id: string,
  words: string,
  code: ErrorCode,
  attempt: Attempt,
  threshold = 1,
): UploadCase => ({
  id,
  group: 'upload',
  attack: words,
  code,
  async run() {
    const world = await uploadWorld();
    return attempt(await world.publisher(threshold), world);
  },
});

export const stranger = publisherKey('a stranger');
export const entryOf = (publisher: Publisher, version: string): TargetEntry => {
  const entry = publisher.targets.get(`${publisher.namespace}/echo/${version}`);
  if (entry === undefined) throw new Error(`no target ${version}`);
  return entry;
};
export const withTargets = (publisher: Publisher, more: [string, TargetEntry][]): Map<string, TargetEntry> =>
  new Map([...publisher.targets, ...more]);

/** Metadata that names exactly this manifest as 1.2.0, honestly signed. */
export function signedFor(p: Publisher, manifest: Uint8Array, signers: Signer[] = [p.key]) {
  const entry = { sha256: sha256Hex(manifest), bytes: manifest.length, counter: 3, requires: null };
  const targets = withTargets(p, [[`${p.namespace}/echo/1.2.0`, entry]]);
  return { releaseId: `${p.namespace}/echo@1.2.0`, manifest, metadata: p.next({ targets, signers }) };
}

/** What an operator would do next. */
export async function startRollout(world: UploadWorld, release: string): Promise<string> {
  const file = { apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name: 'attack' }, spec: { release } };
  return world.code(await world.ask('POST', '/api/v1/rollouts', { file: JSON.stringify(file) }));
}
