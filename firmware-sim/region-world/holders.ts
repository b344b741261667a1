// Why: the people who hold the catalogue's offline keys: they take them off the home region's disk, and put another
// region's online keys in force when it takes over. Trusts: shared/trust/ceremony.
// Must never: sign two different roots of one version.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import {
  bundleDocuments,
  bundleNext,
  bundleOf,
  planDocuments,
  withNext,
} from '../../shared/trust/ceremony/bundle.ts';
import { applyChanges, type Change } from '../../shared/trust/ceremony/change.ts';
import { nextDocuments } from '../../shared/trust/ceremony/documents.ts';
import { documentsFor, followDocuments, signDocuments } from '../../shared/trust/ceremony/follow.ts';
import { readStanding } from '../../shared/trust/ceremony/standing.ts';
import { encodeMove, signMove } from '../../shared/trust/device-move.ts';
import { parseRoot } from '../../shared/trust/tuf/metadata.ts';
import type { MoveOrder } from '../../shared/wire/device-move.ts';
import { type KeyBundle, type KeyPlan, onlineRoles } from '../../shared/wire/key-plan.ts';
import type { Envelope } from '../../shared/wire/messages.ts';
import { drawBytes } from '../chance.ts';

export interface Holders {
  /** The home's first ceremony: root and targets go offline, the plan's online keys are in force; null as below. */
  takeOffline(plan: KeyPlan, nowMs: number): KeyBundle | null;
  /** The plan's online keys are in force at the region that made it; null: they signed another root of that version. */
  handOver(plan: KeyPlan, nowMs: number): KeyBundle | null;
  /** An order that moves devices, with the signatures of as many holders as the root asks for. */
  move(order: MoveOrder): Envelope;
}

/** `isKnown`: whether a root of this content was ever in force anywhere; one that was not may be signed anew. */
export function createHolders(seed: number, isKnown: (rootSha256: string) => boolean): Holders {
  const roots = ['alice', 'bob', 'carol'].map((name) => ({
    name,
    signer: signerFromSeed(drawBytes(32, seed, 'holder', name), 'node'),
  }));
  const tina = { name: 'tina', signer: signerFromSeed(drawBytes(32, seed, 'holder', 'tina'), 'node') };
  /** By version, the digest of what was signed. */
  const signed = new Map<number, string>();

  const keyOf = ({ name, signer }: { name: string; signer: Signer }) => ({
    publicKey: signer.publicKey,
    holder: name,
  });

  function onlineOf({ newOnline }: KeyPlan): Change[] {
    if (newOnline === null) throw new FleetError('internal', 'the plan has no new online keys');
    return onlineRoles.map((role) => ({
      kind: 'set',
      role,
      keys: [{ publicKey: new Uint8Array(Buffer.from(newOnline[role], 'hex')), holder: null }],
      threshold: 1,
    }));
  }

  function bundleFrom(plan: KeyPlan, changes: readonly Change[], nowMs: number): KeyBundle {
    const standing = unwrap(readStanding(planDocuments(plan)));
    const changed = unwrap(applyChanges(standing, changes));
    const next = unwrap(
      nextDocuments(standing, changed, {
        nowMs,
        renew: false,
        renewPublishers: new Set(),
        leaveUnsigned: new Set(),
      }),
    );
    return bundleOf({ standing, next, holders: changed.holders, nowMs });
  }

  function signedBy(bundle: KeyBundle, signers: readonly Signer[]): KeyBundle | null {
    const standing = unwrap(readStanding(bundleDocuments(bundle)));
    let next = bundleNext(bundle);
    const root = next.root === null ? null : unwrap(parseRoot(next.root, []));
    if (root !== null) {
      const content = sha256Hex(root.signedBytes);
      const before = signed.get(root.version) ?? content;
      if (before !== content && isKnown(before)) return null;
      signed.set(root.version, content);
    }
    for (const signer of signers) {
      const followed = unwrap(followDocuments(standing, next));
      next = signDocuments(next, documentsFor(followed, signer.publicKey), signer);
    }
    return withNext(bundle, next);
  }

  return {
    takeOffline(plan, nowMs) {
      const changes: Change[] = [
        { kind: 'set', role: 'root', keys: roots.map(keyOf), threshold: 2 },
        { kind: 'set', role: 'targets', keys: [keyOf(tina)], threshold: 1 },
        ...onlineOf(plan),
      ];
      const first = roots.slice(0, 2).map(({ signer }) => signer);
      return signedBy(bundleFrom(plan, changes, nowMs), [...first, tina.signer]);
    },
    move: (order) =>
      signMove(
        encodeMove(order),
        roots.slice(1).map(({ signer }) => signer),
      ),
    handOver(plan, nowMs) {
      return signedBy(
        bundleFrom(plan, onlineOf(plan), nowMs),
        roots.slice(1).map(({ signer }) => signer),
      );
    },
  };
}
