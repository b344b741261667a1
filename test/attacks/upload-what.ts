// Why: attacks by what is uploaded: files, manifests and metadata that are not what they must be, some of them
// signed by a stolen publisher's key. Trusts: upload-attempt.ts.
// Must never: count a refusal for another reason: but for the attack, each upload is right.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { TargetEntry } from '../../shared/trust/tuf/repository.ts';
import { identityModel } from '../registry-core/support.ts';
import {
  attack,
  entryOf,
  signedFor,
  startRollout,
  stranger,
  type UploadCase,
  withTargets,
} from './upload-attempt.ts';
import { type Publisher, rewritten, utf8, withSigned } from './upload-world.ts';

/** Files that are not what the manifest says. */
export const files: UploadCase[] = [
  attack('unlisted-file', 'the manifest lists a file that was never uploaded', 'blob-missing', async (p) => {
    const absent = identityModel(`${p.namespace} absent`);
    const manifest = p.manifest('1.2.0', absent);
    return p.push(signedFor(p, manifest));
  }),
  attack(
    'other-digest',
    'a file is uploaded under another file’s digest',
    'blob-digest-mismatch',
    async (p, world) => {
      const [said, sent] = [identityModel(`${p.namespace} said`), identityModel(`${p.namespace} sent`)];
      return world.code(await world.ask('PUT', `/api/v1/blobs/${sha256Hex(said)}`, sent));
    },
  ),
  attack(
    'flipped-bit',
    'the right manifest, with one bit of the model changed',
    'blob-digest-mismatch',
    async (p, world) => {
      const model = identityModel(`${p.namespace} flipped`);
      const changed = Uint8Array.from(model, (byte, at) => (at === 5 ? byte ^ 1 : byte));
      const taken = await world.code(await world.ask('PUT', `/api/v1/blobs/${sha256Hex(model)}`, changed));
      return taken.startsWith('taken') ? p.push(signedFor(p, p.manifest('1.2.0', model))) : taken;
    },
  ),
  attack('wrong-size', 'the right digest with another size', 'blob-size-mismatch', async (p) => {
    const model = identityModel(`${p.namespace} sized`);
    await p.upload(model);
    const file = { path: 'model.onnx', role: 'model', sha256: sha256Hex(model), bytes: model.length + 1 };
    return p.push(signedFor(p, p.manifest('1.2.0', model, { files: [file] })));
  }),
  attack('no-digest', 'a file is uploaded under a name that is a path', 'input-invalid', async (_p, world) =>
    world.code(await world.ask('PUT', '/api/v1/blobs/..%2F..%2Fadmin.token', utf8('mine'))),
  ),
  attack(
    'other-manifest',
    'another manifest than the one that was signed',
    'target-digest-mismatch',
    async (p) => {
      const good = await p.honest();
      const changed = p.manifest('1.2.0', identityModel(`${p.namespace} 1.2.0`), {
        limits: { memoryMiB: 1 },
      });
      return p.push({ ...good, manifest: changed });
    },
  ),
  attack(
    'respaced-manifest',
    'the signed manifest with another space in it',
    'target-digest-mismatch',
    async (p) => {
      const good = await p.honest();
      return p.push({ ...good, manifest: rewritten(good.manifest, (words) => `${words} `) });
    },
  ),
  attack('other-name', 'a manifest that speaks of another release', 'manifest-malformed', async (p) => {
    const model = identityModel(`${p.namespace} 1.2.0`);
    await p.upload(model);
    return p.push(signedFor(p, p.manifest('9.9.9', model)));
  }),
  ...['../../etc/cron.d/x', '/etc/passwd', 'a/../../b', '..', 'a\\..\\b'].map((path, index) =>
    attack(
      `path-leaves-${index + 1}`,
      `a file named ${path} leaves the release’s folder`,
      'manifest-malformed',
      async (p) => {
        const model = identityModel(`${p.namespace} 1.2.0`);
        await p.upload(model);
        const file = { path, role: 'model', sha256: sha256Hex(model), bytes: model.length };
        return p.push(signedFor(p, p.manifest('1.2.0', model, { files: [file] })));
      },
    ),
  ),
  attack('endless-manifest', 'a manifest of more than 1 MiB', 'manifest-malformed', async (p) => {
    const model = identityModel(`${p.namespace} 1.2.0`);
    await p.upload(model);
    return p.push(signedFor(p, p.manifest('1.2.0', model, { note: 'x'.repeat(limits.manifestBytesMax) })));
  }),
];

/** A stolen publisher's key tries to rewrite what was signed. */
export const history: UploadCase[] = [
  attack('lower-counter', 'a new release with a lower counter', 'conflict', async (p) =>
    p.push(await p.honest({ counter: 0 })),
  ),
  attack('counter-twice', 'a new release with a counter that is taken', 'conflict', async (p) =>
    p.push(await p.honest({ counter: 2 })),
  ),
  attack('no-counter', 'a new release without a counter', 'metadata-malformed', async (p) => {
    const good = await p.honest();
    const entry = {
      sha256: sha256Hex(good.manifest),
      bytes: good.manifest.length,
      counter: null,
      requires: null,
    };
    const targets = withTargets(p, [[`${p.namespace}/echo/1.2.0`, entry]]);
    return p.push({ ...good, metadata: p.next({ targets }) });
  }),
  attack('skipped-version', 'a version of the metadata is skipped', 'metadata-version-invalid', async (p) =>
    p.step(p.next({ version: p.version + 2 })),
  ),
  attack(
    'replayed-version',
    'the version in force again, with other content',
    'metadata-version-invalid',
    async (p) => p.step(p.next({ version: p.version, expiresAtMs: Date.now() + 1_000_000 })),
  ),
  attack('rewritten-release', 'a signed release gets other content', 'release-exists', async (p) => {
    const path = `${p.namespace}/echo/1.0.0`;
    return p.step(
      p.next({ targets: withTargets(p, [[path, { ...entryOf(p, '1.0.0'), sha256: 'ab'.repeat(32) }]]) }),
    );
  }),
  attack(
    'rewritten-requirements',
    'a signed release needs other hardware now',
    'release-exists',
    async (p) => {
      const path = `${p.namespace}/echo/1.0.0`;
      const entry = { ...entryOf(p, '1.0.0'), requires: { arch: ['arm64'] } };
      return p.step(p.next({ targets: withTargets(p, [[path, entry]]) }));
    },
  ),
  attack(
    'pushed-again',
    'a version that exists is pushed again with another model',
    'release-exists',
    async (p) => {
      const model = identityModel(`${p.namespace} again`);
      await p.upload(model);
      const manifest = p.manifest('1.0.0', model);
      const entry = { sha256: sha256Hex(manifest), bytes: manifest.length, counter: 3, requires: null };
      const targets = withTargets(p, [[`${p.namespace}/echo/1.0.0`, entry]]);
      return p.push({ releaseId: `${p.namespace}/echo@1.0.0`, manifest, metadata: p.next({ targets }) });
    },
  ),
  attack('vanished-release', 'a signed release is left out', 'metadata-rollback', async (p) =>
    p.step(p.next({ targets: new Map([...p.targets].slice(1)) })),
  ),
  attack('floor-falls', 'a floor is taken back', 'metadata-rollback', async (p) => {
    const raised = await p.step(p.next({ floors: new Map([['echo', 2]]) }));
    return raised === 'accepted'
      ? p.step(p.next({ version: p.version + 2, floors: new Map([['echo', 1]]) }))
      : raised;
  }),
  attack('withdrawal-taken-back', 'a withdrawn release comes back', 'metadata-rollback', async (p) => {
    const withdrawn = await p.step(p.next({ withdrawn: new Map([['echo', new Set([1])]]) }));
    return withdrawn === 'accepted' ? p.step(p.next({ version: p.version + 2 })) : withdrawn;
  }),
  attack(
    'withdrawn-in-advance',
    'a counter is withdrawn that no release has yet',
    'target-unknown',
    async (p) => p.step(p.next({ withdrawn: new Map([['echo', new Set([3])]]) })),
  ),
  attack(
    'withdrawn-rolled-out',
    'a withdrawn release is rolled out',
    'release-withdrawn',
    async (p, world) => {
      const withdrawn = await p.step(p.next({ withdrawn: new Map([['echo', new Set([2])]]) }));
      return withdrawn === 'accepted' ? startRollout(world, `${p.namespace}/echo@1.1.0`) : withdrawn;
    },
  ),
  attack(
    'below-floor-rolled-out',
    'a release below its floor is rolled out',
    'release-below-floor',
    async (p, world) => {
      const raised = await p.step(p.next({ floors: new Map([['echo', 2]]) }));
      return raised === 'accepted' ? startRollout(world, `${p.namespace}/echo@1.0.0`) : raised;
    },
  ),
  attack('pushed-below-floor', 'a new release below its own floor', 'release-below-floor', async (p) => {
    const good = await p.honest();
    const entry = {
      sha256: sha256Hex(good.manifest),
      bytes: good.manifest.length,
      counter: 3,
      requires: null,
    };
    const targets = withTargets(p, [[`${p.namespace}/echo/1.2.0`, entry]]);
    return p.push({ ...good, metadata: p.next({ targets, floors: new Map([['echo', 4]]) }) });
  }),
];

/** Metadata that says what a publisher may not say, or says it in two ways. */
export const forms: UploadCase[] = [
  attack('expired', 'metadata that has expired', 'metadata-expired', async (p) =>
    p.step(p.next({ expiresAtMs: Date.now() - 1_000 })),
  ),
  attack('delegation', 'a publisher delegates its namespace further', 'metadata-malformed', async (p) =>
    p.step(p.next({ delegations: [{ namespace: 'sub', keys: [stranger.publicKey], threshold: 1 }] })),
  ),
  attack(
    'outside-namespace',
    'a publisher names a release of another namespace',
    'metadata-malformed',
    async (p, world) => {
      const other = await world.publisher();
      const path = `${other.namespace}/echo/2.0.0`;
      return p.step(p.next({ targets: withTargets(p, [[path, { ...entryOf(p, '1.0.0'), counter: 9 }]]) }));
    },
  ),
  attack('no-release-path', 'a target whose path is no release', 'metadata-malformed', async (p) => {
    const path = `${p.namespace}/echo/../2.0.0`;
    return p.step(p.next({ targets: withTargets(p, [[path, { ...entryOf(p, '1.0.0'), counter: 9 }]]) }));
  }),
  attack('other-role', 'a file of another role in place of targets', 'metadata-malformed', async (p) =>
    p.step(withSigned(p.next(), { _type: 'snapshot', meta: {} }, p.key)),
  ),
  attack('empty-hashes', 'a target without a digest', 'metadata-malformed', async (p) =>
    p.step(rewritten(p.next(), (words) => words.replace(/"hashes":\{[^}]*\}/, '"hashes":{}'))),
  ),
  attack('release-as-step', 'a release is smuggled in without its manifest', 'input-invalid', async (p) =>
    p.step((await p.honest()).metadata),
  ),
  attack(
    'two-releases',
    'a push that adds another release beside its own',
    'metadata-malformed',
    async (p) => {
      const good = await p.honest();
      const third: [string, TargetEntry] = [
        `${p.namespace}/other/1.0.0`,
        { ...entryOf(p, '1.0.0'), counter: 1 },
      ];
      const entry = {
        sha256: sha256Hex(good.manifest),
        bytes: good.manifest.length,
        counter: 3,
        requires: null,
      };
      const targets = withTargets(p, [third, [`${p.namespace}/echo/1.2.0`, entry]]);
      return p.push({ ...good, metadata: p.next({ targets }) });
    },
  ),
  attack(
    'unreadable-requirements',
    'requirements that no rollout could judge',
    'metadata-malformed',
    async (p) => {
      const good = await p.honest();
      const entry = {
        sha256: sha256Hex(good.manifest),
        bytes: good.manifest.length,
        counter: 3,
        requires: { arch: 'x64' },
      };
      const targets = withTargets(p, [[`${p.namespace}/echo/1.2.0`, entry]]);
      return p.push({ ...good, metadata: p.next({ targets }) });
    },
  ),
  attack(
    'metadata-duplicate-key',
    'metadata with a key twice in one object',
    'metadata-malformed',
    async (p) =>
      p.step(rewritten(p.next(), (words) => words.replace('"version":', '"version":1,"version":'))),
  ),
  attack('metadata-bom', 'metadata behind a byte order mark', 'metadata-malformed', async (p) =>
    p.step(rewritten(p.next(), (words) => `\ufeff${words}`)),
  ),
  attack('metadata-invalid-utf8', 'metadata that is not UTF-8', 'metadata-malformed', async (p) => {
    const bytes = withSigned(p.next(), { note: 'xx' }, p.key);
    return p.step(Uint8Array.from(bytes, (byte) => (byte === 0x78 ? 0xff : byte)));
  }),
  attack('metadata-deep', 'metadata 10,000 levels deep', 'metadata-malformed', async (p) =>
    p.step(rewritten(p.next(), (words) => words.replace('"signed":{', `"signed":{"note":${nested},`))),
  ),
  attack('metadata-truncated', 'metadata that breaks off', 'metadata-malformed', async (p) => {
    const bytes = p.next();
    return p.step(bytes.subarray(0, bytes.length - 2));
  }),
  attack('metadata-too-large', '8 MiB and one byte of metadata', 'metadata-too-large', async (p) => {
    const bytes = p.next();
    const padded = new Uint8Array(limits.targetsBytesMax + 1).fill(0x20);
    padded.set(bytes);
    return p.step(padded);
  }),
  attack(
    'manifest-duplicate-key',
    'a manifest with a key twice in one object',
    'manifest-malformed',
    async (p) => pushManifest(p, (words) => words.replace('"version":', '"version":"0.0.1","version":')),
  ),
  attack('manifest-bom', 'a manifest behind a byte order mark', 'manifest-malformed', async (p) =>
    pushManifest(p, (words) => `\ufeff${words}`),
  ),
  attack('manifest-invalid-utf8', 'a manifest that is not UTF-8', 'manifest-malformed', async (p) => {
    const good = await p.honest({ manifest: { note: 'QQ' } });
    return p.push(
      signedFor(
        p,
        Uint8Array.from(good.manifest, (byte) => (byte === 0x51 ? 0xff : byte)),
      ),
    );
  }),
  attack('manifest-deep', 'a manifest 10,000 levels deep', 'manifest-malformed', async (p) =>
    pushManifest(p, (words) => words.replace('{', `{"note":${nested},`)),
  ),
];

const nested = '['.repeat(10_000) + ']'.repeat(10_000);

/** A manifest whose text is changed, and that is honestly signed as it is then. */
async function pushManifest(p: Publisher, change: (text: string) => string): Promise<string> {
  return p.push(signedFor(p, rewritten((await p.honest()).manifest, change)));
}
