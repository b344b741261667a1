// Why: releases with a model card, pushed as a publisher's machine does it.
// Trusts: test/registry-core/support.ts for what is signed. Must never: judge.

import type { RegistryCore } from '../../registry/core.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { hexOf, identityModel, once, preparePush, publisherKey } from '../registry-core/support.ts';

const publisher = publisherKey('acme');

export async function pushWithCard(
  at: Pick<RegistryCore, 'repository' | 'blobs' | 'releases' | 'clock'>,
  releaseId: string,
  counter: number,
  card: string,
) {
  const { repository, blobs, releases, clock } = at;
  const [namespace = ''] = releaseId.split('/');
  if ((await repository.publisher(namespace)) === null)
    unwrap(await repository.delegate(namespace, [hexOf(publisher)], 1));
  const version = (await repository.publisher(namespace))?.metadataVersion ?? 0;
  const files = [
    { path: 'model.onnx', role: 'model', content: identityModel(releaseId) },
    { path: 'card.md', role: 'card', content: new TextEncoder().encode(card) },
  ];
  for (const { content } of files) unwrap(await blobs.put(sha256Hex(content), once(content)));
  const push = preparePush({
    ...{ releaseId, counter, model: identityModel(releaseId), signers: [publisher] },
    current: version === 0 ? null : await repository.file(`${version}.${namespace}.json`),
    expiresAtMs: clock.wall() + 86_400_000,
    manifest: {
      files: files.map(({ path, role, content }) => ({
        ...{ path, role, sha256: sha256Hex(content), bytes: content.length },
      })),
    },
  });
  return releases.push(push);
}
