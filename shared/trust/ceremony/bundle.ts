// Why: plan and bundle files as what they mean: base64 becomes documents once, here.
// Trusts: the schemas in wire/key-plan.ts for shape, standing.ts for signatures. Must never: judge.

import type { KeyBundle, KeyPlan } from '../../wire/key-plan.ts';
import type { NextDocuments } from './documents.ts';
import type { Standing, StandingDocuments } from './standing.ts';

const fromBase64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
const toBase64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const orNull = <A, B>(value: A | null, make: (value: A) => B): B | null =>
  value === null ? null : make(value);

function mapOf(record: Readonly<Record<string, string>>): Map<string, Uint8Array> {
  return new Map(Object.entries(record).map(([name, text]) => [name, fromBase64(text)]));
}

function recordOf(map: ReadonlyMap<string, Uint8Array>): Record<string, string> {
  return Object.fromEntries([...map].map(([name, bytes]) => [name, toBase64(bytes)]));
}

/** Stands as the holder of development keys: the registry adds their signatures when it installs. */
export const heldByRegistry = 'the registry itself, at install';

/** The documents in force, as a plan carries them. */
export function planDocuments(plan: KeyPlan): StandingDocuments {
  const { root, regionRoot, targets } = plan;
  return {
    root: fromBase64(root),
    regionRoot: fromBase64(regionRoot),
    targets: fromBase64(targets),
    publishers: new Map(
      plan.publishers.flatMap(({ namespace, metadata }) =>
        metadata === null ? [] : [[namespace, fromBase64(metadata)] as const],
      ),
    ),
    versionFloors: new Map(plan.publishers.map(({ namespace, versionFloor }) => [namespace, versionFloor])),
  };
}

export function bundleOf(parts: {
  standing: Standing;
  next: NextDocuments;
  holders: ReadonlyMap<string, string>;
  nowMs: number;
}): KeyBundle {
  const { standing, next, holders, nowMs } = parts;
  const signedAgain = [...next.publishers.keys()].map(
    (namespace) => [namespace, standing.publishers.get(namespace) ?? new Uint8Array()] as const,
  );
  const floors = [...standing.versionFloors].filter(([namespace]) => next.publishers.has(namespace));
  return {
    schemaVersion: 1,
    kind: 'lepton-key-bundle',
    region: standing.region,
    madeAtMs: nowMs,
    current: {
      root: toBase64(standing.root.bytes),
      regionRoot: toBase64(standing.regionRoot.bytes),
      targets: toBase64(standing.targets.bytes),
      publishers: recordOf(new Map(signedAgain)),
      versionFloors: Object.fromEntries(floors),
    },
    next: writeNext(next),
    leftUnsigned: [...next.leftUnsigned].sort(),
    holders: Object.fromEntries(holders),
  };
}

/** The bundle with other next documents: the same ones, signed by one more. */
export function withNext(bundle: KeyBundle, next: NextDocuments): KeyBundle {
  return { ...bundle, next: writeNext(next) };
}

function writeNext(next: NextDocuments): KeyBundle['next'] {
  return {
    root: orNull(next.root, toBase64),
    regionRoot: orNull(next.regionRoot, toBase64),
    targets: orNull(next.targets, toBase64),
    publishers: recordOf(next.publishers),
  };
}

/** What the bundle says is in force. The registry compares it with what is. */
export function bundleDocuments(bundle: KeyBundle): StandingDocuments {
  const { root, regionRoot, targets, publishers, versionFloors } = bundle.current;
  return {
    root: fromBase64(root),
    regionRoot: fromBase64(regionRoot),
    targets: fromBase64(targets),
    publishers: mapOf(publishers),
    versionFloors: new Map(Object.entries(versionFloors)),
  };
}

export function bundleNext(bundle: KeyBundle): NextDocuments {
  const { root, regionRoot, targets, publishers } = bundle.next;
  return {
    root: orNull(root, fromBase64),
    regionRoot: orNull(regionRoot, fromBase64),
    targets: orNull(targets, fromBase64),
    publishers: mapOf(publishers),
    leftUnsigned: new Set(bundle.leftUnsigned),
  };
}

export function bundleHolders(bundle: KeyBundle, standing: Standing): Map<string, string> {
  return new Map([...Object.entries(bundle.holders), ...standing.holders]);
}
