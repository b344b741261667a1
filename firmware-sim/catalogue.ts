// Why: the releases of one simulated world, good and bad in every way the agent must notice.
// Trusts: the seed. Must never: make a release whose outcome on the device depends on timing.

import { sha256Hex } from '../shared/crypto/digests.ts';
import type { ProbeEvidence } from '../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../shared/kernel/result.ts';
import { type AssignedRelease, encodeMessage } from '../shared/wire/messages.ts';
import { drawBytes, drawInt } from './chance.ts';

/** How a release turns out, and the code the device gives as its reason. */
export const outcomes = {
  good: null,
  'bad-golden': 'probe-golden-failed',
  slow: 'probe-latency-exceeded',
  hungry: 'probe-memory-exceeded',
  'other-arch': 'release-incompatible',
  'wrong-bytes': 'blob-digest-mismatch',
  'wrong-size': 'blob-size-mismatch',
  unsigned: 'target-unknown',
  'no-load': 'model-invalid',
  'fails-in-service': 'soak-errors',
  /** Where something serves that it can be compared with; a first install has nothing. */
  disagrees: 'shadow-disagreement',
} as const;
export type Kind = keyof typeof outcomes;

export interface SimRelease {
  key: string;
  kind: Kind;
  releaseId: string;
  manifestSha256: string;
  manifestBytes: number;
  counter: number;
  /** Digests of the manifest and of all files. */
  digests: string[];
  evidence: ProbeEvidence;
}

export interface Catalogue {
  release(key: string): SimRelease;
  ofManifest(sha256: string): SimRelease | undefined;
  /** The true bytes of a blob. */
  content(sha256: string): Uint8Array | undefined;
  /** What the registry sends: the same, but for the blobs of `wrong-bytes` and `wrong-size`. */
  served(sha256: string): Result<Uint8Array>;
  /** Whether the registry sends other bytes than were signed. */
  spoiled(sha256: string): boolean;
  /** Whether publisher and director both name it. */
  agree(assigned: AssignedRelease): Result<void>;
}

export const simArch = 'x64';
const goodEvidence: ProbeEvidence = {
  goldenCases: 4,
  goldenPassed: 4,
  firstFailure: null,
  latencyP50Ms: 3,
  latencyP95Ms: 5,
  memoryBytesPeak: 50 * 1024 * 1024,
};

function evidenceOf(kind: Kind): ProbeEvidence {
  if (kind === 'bad-golden')
    return { ...goodEvidence, goldenPassed: 3, firstFailure: 'case 2: label differs' };
  if (kind === 'slow') return { ...goodEvidence, latencyP95Ms: 400 };
  if (kind === 'hungry') return { ...goodEvidence, memoryBytesPeak: 900 * 1024 * 1024 };
  return goodEvidence;
}

/** Releases `<model>/<kind>/<number>`, made when first asked for; files of one model are partly shared. */
export function createCatalogue(seed: number): Catalogue {
  const releases = new Map<string, SimRelease>();
  const byManifest = new Map<string, SimRelease>();
  const blobs = new Map<string, Uint8Array>();
  const spoiled = new Map<string, Uint8Array>();

  function blob(bytes: Uint8Array): { sha256: string; bytes: number } {
    const sha256 = sha256Hex(bytes);
    blobs.set(sha256, bytes);
    return { sha256, bytes: bytes.length };
  }

  function make(key: string): SimRelease {
    const [model = '', kindText = '', number = '0'] = key.split('/');
    const kind = kindText as Kind;
    const order = Object.keys(outcomes).indexOf(kind);
    const version = `${Number(number) + 1}.${order}.0`;
    const releaseId = `acme/${model}@${version}`;
    const modelBytes = drawBytes(drawInt(0, 6_000, seed, 'model-size', key), seed, 'model', key);
    const files = [
      { path: 'model.onnx', role: 'model', ...blob(modelBytes) },
      { path: 'golden.json', role: 'golden', ...blob(drawBytes(700, seed, 'golden', model)) },
      { path: 'card.md', role: 'card', ...blob(new Uint8Array(0)) },
    ];
    const weights = drawBytes(drawInt(1, 2_000, seed, 'weights-size', key), seed, 'weights', key);
    const extra = { path: 'weights.bin', role: 'external-data', ...blob(weights) };
    files.push(extra);
    if (kind === 'wrong-bytes') {
      const flipped = weights.slice();
      flipped[0] = (flipped[0] ?? 0) ^ 1;
      spoiled.set(extra.sha256, flipped);
    }
    if (kind === 'wrong-size') spoiled.set(extra.sha256, weights.slice(1));
    const manifest = blob(
      encodeMessage({
        schemaVersion: 1,
        name: `acme/${model}`,
        version,
        files,
        requires: { arch: kind === 'other-arch' ? ['riscv64'] : [simArch] },
        limits: { latencyP95Ms: 100, memoryMiB: 200 },
      }),
    );
    return {
      key,
      kind,
      releaseId,
      manifestSha256: manifest.sha256,
      manifestBytes: manifest.bytes,
      counter: Number(number),
      digests: [manifest.sha256, ...files.map((file) => file.sha256)],
      evidence: evidenceOf(kind),
    };
  }

  return {
    release: (key) => {
      const known = releases.get(key);
      if (known !== undefined) return known;
      const made = make(key);
      releases.set(key, made);
      byManifest.set(made.manifestSha256, made);
      return made;
    },
    ofManifest: (sha256) => byManifest.get(sha256),
    content: (sha256) => blobs.get(sha256),
    served: (sha256) => {
      const bytes = spoiled.get(sha256) ?? blobs.get(sha256);
      return bytes === undefined ? refuse('fetch-not-found', sha256) : ok(bytes);
    },
    spoiled: (sha256) => spoiled.has(sha256),
    agree: (assigned) => {
      const release = byManifest.get(assigned.manifestSha256);
      if (release === undefined || release.kind === 'unsigned') {
        return refuse('target-unknown', assigned.releaseId);
      }
      return ok();
    },
  };
}

/** What a runtime says of loading it. */
export function loadRefusal(kind: Kind): Refusal | null {
  return kind === 'no-load' ? { code: 'model-invalid', detail: 'the graph is not accepted' } : null;
}
