// Why: every next version of a namespace is made on the publisher's machine: from the verified current one, with
// the publisher's key, and in words before it is signed. Trusts: the pinned root; the key file.
// Must never: sign what was not verified or made here, or more than was asked for.

import { z } from 'zod';
import { FleetError, refusalError, unwrap } from '../../shared/kernel/errors.ts';
import { type TrustState, verifyStoredCatalogue } from '../../shared/trust/tuf/client.ts';
import {
  checkPublisherStep,
  nextPublisherTargets,
  type PublisherStep,
  type PublisherTargets,
  readPublisherTargets,
  restoreLostMax,
} from '../../shared/trust/tuf/publisher.ts';
import { type ReviewedStep, reviewStep } from '../../shared/trust/tuf/publisher-review.ts';
import { addSignature, parseSnapshotFile } from '../../shared/trust/tuf/repository.ts';
import {
  type PendingPush,
  type PublisherStepTaken,
  type PublisherView,
  pendingPushSchema,
  publisherSchema,
  publisherStepTakenSchema,
} from '../../shared/wire/http.ts';
import { verifiedCatalogue } from './catalogue.ts';
import type { RegistryClient } from './client.ts';
import { note, when } from './output.ts';
import { type PublisherKey, publisherKey } from './publisher-key.ts';

const yearMs = 365 * 86_400_000;
/** Another publisher may push between our read and our write; then the next version is made again. */
const attemptsMax = 4;

/** What a namespace's next version is made from. */
export interface PublisherGround {
  namespace: string;
  /** The verified metadata in force, null before the first release. */
  current: PublisherTargets | null;
  floors: { versionFloor: number; counterFloors: ReadonlyMap<string, number> };
}

export function nextExpiryMs(): number {
  return Date.now() + yearMs;
}

/** The namespace as the registry knows it, null where it does not. */
export async function findPublisher(
  client: RegistryClient,
  namespace: string,
): Promise<PublisherView | null> {
  const all = await client.get('/api/v1/publishers', z.array(publisherSchema));
  return all.find((one) => one.namespace === namespace) ?? null;
}

/** This machine's key, which must be one of the namespace's. */
export function namedKey(publisher: PublisherView, keyFile: string | undefined): PublisherKey {
  const { namespace, keys } = publisher;
  const key = publisherKey(namespace, keyFile, false);
  if (keys.includes(key.publicKeyHex)) return key;
  throw new FleetError('publisher-key-unknown', `${key.file} is not one of the keys of ${namespace}`, {
    hint: `name it first: lepton publishers add ${namespace} --key ${key.publicKeyHex} (with the other keys)`,
  });
}

async function knownPublisher(client: RegistryClient, namespace: string): Promise<PublisherView> {
  const publisher = await findPublisher(client, namespace);
  if (publisher !== null) return publisher;
  throw new FleetError('namespace-unknown', `the catalogue does not know the namespace ${namespace}`);
}

/**
 * The namespace's metadata, verified from the pinned root. Expired metadata is no reason to stop here: the
 * next version is what ends that. Throws every other code of `refreshCatalogue`.
 */
async function verifiedCurrent(client: RegistryClient, namespace: string): Promise<Uint8Array | null> {
  const state = await verifiedCatalogue(client, [namespace]);
  const held = state.delegated[namespace];
  if (held !== undefined) return held;
  const refusal = state.refused?.[namespace];
  if (refusal === undefined) return null;
  if (refusal.code !== 'metadata-expired') throw refusalError(refusal);
  return expiredCurrent(client, namespace, state);
}

async function expiredCurrent(
  client: RegistryClient,
  namespace: string,
  state: TrustState,
): Promise<Uint8Array> {
  const listed = state.snapshot === null ? null : unwrap(parseSnapshotFile(state.snapshot));
  const file = `${listed?.files.get(`${namespace}.json`)?.version ?? 0}.${namespace}.json`;
  const bytes = await client.bytes(`/api/v1/metadata/${file}`);
  if (bytes === null) throw new FleetError('metadata-missing', `the registry has no ${file}`);
  // Everything but its date: signatures, and the digest in the snapshot.
  unwrap(verifyStoredCatalogue({ ...state, delegated: { [namespace]: bytes } }, [namespace]));
  note(`the metadata of ${namespace} has expired: devices install nothing of it until it is renewed\n`);
  return bytes;
}

/** Throws `metadata-version-invalid` where the registry wants to skip more than a restore can have lost. */
export async function publisherGround(
  client: RegistryClient,
  namespace: string,
): Promise<PublisherGround & { publisher: PublisherView }> {
  const publisher = await knownPublisher(client, namespace);
  const bytes = await verifiedCurrent(client, namespace);
  const current = bytes === null ? null : unwrap(readPublisherTargets(bytes));
  const { versionFloor } = publisher;
  if (versionFloor - (current?.version ?? 0) > restoreLostMax) {
    throw new FleetError(
      'metadata-version-invalid',
      `the registry wants version ${versionFloor + 1} of ${namespace} after ${current?.version ?? 0}`,
      { hint: 'ask who runs it what was restored; nothing was signed' },
    );
  }
  const counterFloors = new Map(Object.entries(publisher.counterFloors));
  for (const [model, floor] of counterFloors) {
    let highest = 0;
    for (const [path, { counter }] of current?.targets ?? [])
      if (path.startsWith(`${namespace}/${model}/`)) highest = Math.max(highest, counter ?? 0);
    if (floor - highest > restoreLostMax) {
      throw new FleetError(
        'conflict',
        `the registry wants counters of ${namespace}/${model} above ${floor}`,
        {
          hint: 'ask who runs it what was restored; nothing was signed',
        },
      );
    }
  }
  return { namespace, publisher, current, floors: { versionFloor, counterFloors } };
}

/** Runs `work` again where somebody else's step came in between. */
export async function untilNotRaced<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      const raced =
        error instanceof FleetError &&
        (error.code === 'metadata-version-invalid' || error.code === 'conflict');
      if (!raced || attempt === attemptsMax) throw error;
    }
  }
}

/** What a step changes beside the version; all left out: it renews. */
export interface StepChange {
  floors?: ReadonlyMap<string, number>;
  withdrawn?: ReadonlyMap<string, ReadonlySet<number>>;
}

export type DoneStep =
  | { status: 'unchanged'; namespace: string; does: string[] }
  | (PublisherStepTaken & { does: string[]; expiresAtMs: number });

/**
 * Makes, signs and sends a step that adds no release. `decide` says what it changes, or in words why nothing
 * is left to do. Where exactly this waits already, signed by another publisher, that one gets this signature.
 */
export async function takeStep(
  client: RegistryClient,
  namespace: string,
  keyFile: string | undefined,
  decide: (ground: PublisherGround) => StepChange | string,
): Promise<DoneStep> {
  return untilNotRaced(async () => {
    const ground = await publisherGround(client, namespace);
    const key = namedKey(ground.publisher, keyFile);
    const change = decide(ground);
    if (typeof change === 'string') return { status: 'unchanged', namespace, does: [change] };
    const expiresAtMs = nextExpiryMs();
    const made = unwrap(
      nextPublisherTargets({
        namespace,
        current: ground.current,
        add: [],
        ...change,
        ...ground.floors,
        expiresAtMs,
        signers: [key.signer],
      }),
    );
    const own = reviewed(ground, made);
    const waiting = ground.publisher.threshold > 1 ? await waitingStep(client, namespace) : null;
    const theirs = waiting === null ? null : sameStep(ground, own, waiting);
    const metadata = theirs === null ? made : addSignature(theirs.step.next.bytes, key.signer);
    return sendStep(client, namespace, metadata, theirs ?? own);
  });
}

export interface Reviewed extends ReviewedStep {
  step: PublisherStep;
}

function reviewed(ground: PublisherGround, metadata: Uint8Array): Reviewed {
  const { namespace, current, floors } = ground;
  const step = unwrap(checkPublisherStep({ namespace, current, next: metadata, ...floors }));
  return { ...unwrap(reviewStep(namespace, step)), step };
}

export async function waitingStep(client: RegistryClient, namespace: string): Promise<PendingPush | null> {
  try {
    return await client.get(`/api/v1/publishers/${namespace}/pending`, pendingPushSchema);
  } catch (error) {
    if (error instanceof FleetError && error.code === 'not-found') return null;
    throw error;
  }
}

/** Who signs the same thing on the same day means the same thing; only the minute of its expiry differs. */
const sameExpiryMs = 7 * 86_400_000;

function sameStep(ground: PublisherGround, own: Reviewed, waiting: PendingPush): Reviewed | null {
  const { namespace, current, floors } = ground;
  const next = new Uint8Array(Buffer.from(waiting.metadata, 'base64'));
  const step = checkPublisherStep({ namespace, current, next, ...floors });
  const words = step.ok ? reviewStep(namespace, step.value) : step;
  // Whatever waits and is something else is replaced, as the registry will say.
  if (!step.ok || !words.ok) return null;
  const apartMs = Math.abs(step.value.expiresAtMs - own.step.expiresAtMs);
  if (apartMs > sameExpiryMs || JSON.stringify(words.value.does) !== JSON.stringify(own.does)) return null;
  return { ...words.value, step: step.value };
}

async function sendStep(
  client: RegistryClient,
  namespace: string,
  metadata: Uint8Array,
  { step, does }: Reviewed,
): Promise<DoneStep> {
  const taken = await client.send(
    'POST',
    `/api/v1/publishers/${namespace}/metadata`,
    { metadata: Buffer.from(metadata).toString('base64') },
    publisherStepTakenSchema,
  );
  tellReplaced(namespace, taken.replaced);
  return { ...taken, does, expiresAtMs: step.expiresAtMs };
}

/** Says what waited for signatures before and is gone now. */
export function tellReplaced(namespace: string, replaced: readonly string[] | undefined): void {
  for (const what of replaced ?? []) note(`no longer waits for signatures in ${namespace}: ${what}\n`);
}

/** A waiting step as this machine understands it, checked against the verified catalogue. */
export interface WaitingReview extends Reviewed {
  pending: PendingPush;
  publisher: PublisherView;
}

/** Throws `not-found` where nothing waits, and every code of `checkPublisherStep` and `reviewStep`. */
export async function reviewWaiting(client: RegistryClient, namespace: string): Promise<WaitingReview> {
  const pending = await waitingStep(client, namespace);
  if (pending === null) throw new FleetError('not-found', `nothing of ${namespace} waits for signatures`);
  const ground = await publisherGround(client, namespace);
  const found = reviewed(ground, new Uint8Array(Buffer.from(pending.metadata, 'base64')));
  return { ...found, pending, publisher: ground.publisher };
}

/** What is about to be signed, on stderr. */
export function tellStep(namespace: string, { step, stepId, does }: Reviewed): void {
  const head = `version ${step.version} of ${namespace} (step ${stepId}), valid until ${when(step.expiresAtMs)}`;
  note(`${[head, ...does.map((line) => `  ${line}`)].join('\n')}\n`);
}

/** Adds this machine's signature to a step that adds no release. */
export async function signWaiting(
  client: RegistryClient,
  namespace: string,
  review: WaitingReview,
  keyFile: string | undefined,
): Promise<DoneStep> {
  const key = namedKey(review.publisher, keyFile);
  return sendStep(client, namespace, addSignature(review.step.next.bytes, key.signer), review);
}
