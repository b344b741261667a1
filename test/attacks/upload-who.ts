// Why: attacks by somebody who may not: without the keys, below the threshold, with another token.
// Trusts: upload-attempt.ts. Must never: count a refusal for another reason: but for the attack, each upload is right.

import { hexOf } from '../registry-core/support.ts';
import { attack, startRollout, stranger, type UploadCase } from './upload-attempt.ts';
import { rewritten, text, utf8 } from './upload-world.ts';

/** Who may sign, and how many. */
export const authority: UploadCase[] = [
  attack(
    'namespace-without-keys',
    'a push to a namespace for which no key was named',
    'namespace-unknown',
    async (p) => {
      const { metadata, manifest } = await p.honest();
      const swap = (bytes: Uint8Array) => rewritten(bytes, (words) => words.replaceAll(p.namespace, 'ghost'));
      return p.push({ releaseId: 'ghost/echo@1.2.0', metadata: swap(metadata), manifest: swap(manifest) });
    },
  ),
  attack(
    'other-namespace-key',
    'metadata signed by another namespace’s key',
    'publisher-key-unknown',
    async (p, world) => {
      const other = await world.publisher();
      return p.push(await p.honest({ signers: [other.key] }));
    },
  ),
  attack(
    'forged-signature',
    'metadata with a made-up signature under the publisher’s key id',
    'publisher-key-unknown',
    async (p) => {
      const good = await p.honest();
      const file = JSON.parse(text(good.metadata));
      file.signatures = [{ keyid: p.key.keyId, sig: '01'.repeat(64) }];
      return p.push({ ...good, metadata: utf8(JSON.stringify(file)) });
    },
  ),
  attack(
    'borrowed-key-id',
    'a stranger’s signature under the publisher’s key id',
    'publisher-key-unknown',
    async (p) => {
      const good = await p.honest({ signers: [stranger] });
      return p.push({
        ...good,
        metadata: rewritten(good.metadata, (words) => words.replaceAll(stranger.keyId, p.key.keyId)),
      });
    },
  ),
  attack(
    'below-threshold',
    'a release with one of two signatures is rolled out',
    'release-not-signed',
    async (p, world) => {
      const pushed = await p.push(await p.honest());
      if (pushed !== 'awaiting-signatures') return pushed;
      return startRollout(world, `${p.namespace}/echo@1.2.0`);
    },
    2,
  ),
  attack(
    'one-key-twice',
    'one of two publishers signs twice, under two key ids, and rolls out',
    'release-not-signed',
    async (p, world) => {
      const good = await p.honest();
      const file = JSON.parse(text(good.metadata));
      file.signatures.push({ ...file.signatures[0], keyid: 'another-name' });
      const pushed = await p.push({ ...good, metadata: utf8(JSON.stringify(file)) });
      if (pushed !== 'awaiting-signatures') return pushed;
      return startRollout(world, `${p.namespace}/echo@1.2.0`);
    },
    2,
  ),
  attack(
    'small-order-key',
    'a namespace’s key is replaced by one that signs everything',
    'key-invalid',
    async (p, world) => {
      const path = `/api/v1/publishers/${p.namespace}`;
      return world.code(await world.ask('PUT', path, { keys: ['00'.repeat(32)], threshold: 1 }));
    },
  ),
  attack(
    'keys-swapped-under-metadata',
    'a namespace’s keys are replaced by a stranger’s',
    'conflict',
    async (p, world) => {
      const path = `/api/v1/publishers/${p.namespace}`;
      return world.code(await world.ask('PUT', path, { keys: [hexOf(stranger)], threshold: 1 }));
    },
  ),
];

/** Who may ask. */
export const access: UploadCase[] = [
  attack(
    'foreign-token',
    'a token that is bound to another namespace',
    'namespace-forbidden',
    async (p, world) => {
      const other = await world.publisher();
      return p.push(await p.honest(), (await world.token('publisher', other.namespace)).token);
    },
  ),
  attack(
    'foreign-token-step',
    'a token of another namespace withdraws a release',
    'namespace-forbidden',
    async (p, world) => {
      const other = await world.publisher();
      const step = p.next({ withdrawn: new Map([['echo', new Set([1])]]) });
      return p.step(step, (await world.token('publisher', other.namespace)).token);
    },
  ),
  attack('viewer-token', 'a token that may only look', 'role-forbidden', async (p, world) =>
    p.push(await p.honest(), (await world.token('viewer')).token),
  ),
  attack(
    'operator-withdraws',
    'an operator’s token sends a publisher’s step',
    'role-forbidden',
    async (p, world) => p.step(p.next(), (await world.token('operator')).token),
  ),
  attack('no-token', 'no token at all', 'token-missing', async (p) => p.push(await p.honest(), '')),
  attack('garbage-token', 'a token that nobody made', 'token-invalid', async (p) =>
    p.push(await p.honest(), `lepton_${'A'.repeat(43)}`),
  ),
  attack('expired-token', 'a token that has expired', 'token-invalid', async (p, world) => {
    const upload = await p.honest();
    const { token } = await world.token('viewer', undefined, 1);
    // It ends by the registry's clock: asked until that has come.
    while ((await world.ask('GET', '/api/v1/models', undefined, token)).ok);
    return p.push(upload, token);
  }),
  attack('revoked-token', 'a token that was revoked', 'token-invalid', async (p, world) => {
    const { id, token } = await world.token('publisher', p.namespace);
    await world.ask('DELETE', `/api/v1/tokens/${id}`, {});
    return p.push(await p.honest(), token);
  }),
];
