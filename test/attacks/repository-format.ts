// Why: files that two readers would read in two ways, or that cost more than they are worth. All of them are
// well signed over what a lenient reader makes of them, so that nothing but the format is wrong.
// Trusts: the hostile repository. Must never: rely on a signature that fails for another reason.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { type AttackCase, malware, onRepository } from './attack-case.ts';
import { type Edit, encode, inside, type Json } from './hostile-repository.ts';
import { goBeyond } from './repository-healing.ts';

const joined = (...parts: (Uint8Array | string)[]): Uint8Array =>
  new Uint8Array(Buffer.concat(parts.map((part) => (typeof part === 'string' ? encode(part) : part))));

/** The malware's timestamp, made as `edit` says. */
function timestamp(
  id: string,
  attack: string,
  edit: Edit,
  code: ErrorCode = 'metadata-malformed',
): AttackCase {
  return onRepository(id, attack, code, (evil) => {
    evil.publish('acme');
    // The version above that of the timestamp that the line before made is as good as any.
    evil.publish('timestamp', edit);
  });
}

/** The malware's own file; its namespace is refused, the files above it are good. */
function publisher(
  id: string,
  attack: string,
  edit: Edit,
  code: ErrorCode = 'metadata-malformed',
): AttackCase {
  return onRepository(id, attack, code, (evil) => void evil.publish('acme', edit), {
    keeps: true,
    heals: goBeyond,
  });
}

function targets(id: string, attack: string, edit: Edit): AttackCase {
  return onRepository(id, attack, 'metadata-malformed', (evil) => {
    evil.publish('acme', { alone: true });
    evil.list('acme');
    evil.publish('targets', edit);
  });
}

function snapshot(id: string, attack: string, edit: Edit): AttackCase {
  return onRepository(id, attack, 'metadata-malformed', (evil) => {
    evil.publish('acme', { alone: true });
    evil.list('acme');
    evil.publish('snapshot', edit);
  });
}

function root(id: string, attack: string, edit: Edit): AttackCase {
  return onRepository(id, attack, 'metadata-malformed', (evil) => {
    evil.publishRoot(edit);
    evil.publish('acme');
  });
}

const change = (work: (signed: Json) => void): Edit => ({ change: work });
const set = (key: string, value: unknown): Edit => change((signed) => (signed[key] = value));
const rewrite = (from: string | RegExp, to: string): Edit => ({ text: (text) => text.replace(from, to) });
const onMalware = (value: Json): Edit =>
  change((signed) => Object.assign(inside(signed, 'targets', malware), value));
const firstVersion = /"version":\d+/;
const hex64 = 'a'.repeat(64);

const texts: AttackCase[] = [
  timestamp('json-duplicate-key', 'a version that stands twice in one object, first low, then high', {
    text: (text) => text.replace(firstVersion, (found) => `"version":1,${found}`),
  }),
  timestamp('json-bom', 'a byte order mark before the file', {
    bytes: (file) => joined(Uint8Array.of(0xef, 0xbb, 0xbf), file),
  }),
  timestamp('json-bad-utf8', 'bytes that are no UTF-8 in a member nobody reads', {
    change: (signed) => (signed['x-note'] = '?'),
    bytes: (file) =>
      new Uint8Array(Buffer.from(Buffer.from(file).toString('latin1').replace('"?"', '"\xff"'), 'latin1')),
  }),
  timestamp('json-lone-surrogate', 'half a surrogate pair, written as an escape', {
    text: (text) => text.replace(/}$/, ',"x-note":"\\ud800"}'),
  }),
  timestamp('json-deep', 'lists 7,000 levels deep', {
    text: (text) => text.replace(/}$/, `,"x-note":${'['.repeat(7_000)}${']'.repeat(7_000)}}`),
  }),
  publisher('json-deep-objects', 'objects 10,000 levels deep', {
    text: (text) => text.replace(/}$/, `,"x-note":${'{"a":'.repeat(10_000)}0${'}'.repeat(10_000)}}`),
  }),
  timestamp('json-huge-number', 'a number beyond 2^53', rewrite(/}$/, ',"x-note":9007199254740993}')),
  timestamp('json-infinite-number', 'the number 1e400', rewrite(/}$/, ',"x-note":1e400}')),
  timestamp('json-minus-zero', 'the number -0', rewrite(/}$/, ',"x-note":-0}')),
  timestamp('json-exponent', 'a version written with an exponent', rewrite(firstVersion, '"version":1e2')),
  timestamp('json-fraction', 'a version written with a fraction', rewrite(firstVersion, '"version":100.0')),
  timestamp('json-trailing', 'a second value behind the file', { bytes: (file) => joined(file, '{}') }),
  timestamp('json-control', 'a bare control character in a text', rewrite(/}$/, ',"x-note":"\u0001"}')),
  timestamp('json-escape', 'an escape that JSON does not have', rewrite(/}$/, ',"x-note":"\\q"}')),
  timestamp('json-no-colon', 'a member without a colon', rewrite(/}$/, ',"x-note"1}')),
  timestamp('json-no-key', 'a member without a quoted key', rewrite(/}$/, ',x-note":1}')),
  timestamp('json-open-object', 'an object that does not end', {
    bytes: (file) => joined(file.subarray(0, file.length - 1), ' '),
  }),
  timestamp('json-open-array', 'an array that does not end', rewrite(/}$/, ',"x-note":[1 2]}')),
  timestamp('json-open-string', 'a text that does not end', {
    bytes: (file) => joined(file.subarray(0, -2), ',"x'),
  }),
  timestamp('json-no-value', 'a member without a value', rewrite(/}$/, ',"x-note":}')),
  timestamp('json-list', 'a list in the place of the file', { bytes: (file) => joined('[', file, ']') }),
];

const heads: AttackCase[] = [
  timestamp('spec-2', 'a well-signed file of TUF 2.0.0', set('spec_version', '2.0.0')),
  timestamp('version-in-words', 'a version written as text', set('version', '99')),
  timestamp('version-zero', 'version 0', set('version', 0)),
  timestamp('version-negative', 'version −1', set('version', -1)),
  timestamp('type-snapshot', 'a timestamp that calls itself a snapshot', set('_type', 'snapshot')),
  timestamp('expires-number', 'an expiry that is a number', set('expires', 4_102_444_800)),
  root('type-targets-root', 'a root that calls itself targets', set('_type', 'targets')),
  snapshot('type-timestamp-snapshot', 'a snapshot that calls itself a timestamp', set('_type', 'timestamp')),
  targets('type-snapshot-targets', 'targets that call themselves a snapshot', set('_type', 'snapshot')),
  timestamp(
    'signatures-none',
    'a timestamp without a signature',
    { signers: [] },
    'metadata-signature-invalid',
  ),
  timestamp('signature-twice', 'one key id that signs twice', {
    signatures: (list) => void list.push(...list.slice(0, 1)),
  }),
  timestamp('signatures-many', 'more signatures than a file may have', {
    signatures: (list) => {
      for (let index = 0; index < 256; index += 1) list.push({ keyid: `id-${index}`, sig: '00' });
    },
  }),
  timestamp('signature-long', 'a signature of 5,000 digits', {
    signatures: (list) => void list.push({ keyid: 'another', sig: '0'.repeat(5_000) }),
  }),
  timestamp('signature-key-id-long', 'a signature under a key id of 300 characters', {
    signatures: (list) => void list.push({ keyid: 'k'.repeat(300), sig: '00' }),
  }),
  timestamp('signature-key-id-empty', 'a signature under an empty key id', {
    signatures: (list) => void list.push({ keyid: '', sig: '00' }),
  }),
  timestamp(
    'signature-no-hex',
    'a signature with something else behind its digits',
    { signatures: (list) => void Object.assign(list[0] ?? {}, { sig: `${list[0]?.sig}zz` }) },
    'metadata-signature-invalid',
  ),
  timestamp(
    'signature-capitals',
    'a signature in capital digits: a second spelling',
    { signatures: (list) => void Object.assign(list[0] ?? {}, { sig: list[0]?.sig.toUpperCase() }) },
    'metadata-signature-invalid',
  ),
];

const listings: AttackCase[] = [
  timestamp('hashes-empty-timestamp', 'a timestamp that lists a snapshot with an empty `hashes`', {
    change: (signed) => (inside(signed, 'meta', 'snapshot.json')['hashes'] = {}),
  }),
  snapshot('hashes-empty-snapshot', 'a snapshot that lists targets with an empty `hashes`', {
    change: (signed) => (inside(signed, 'meta', 'targets.json')['hashes'] = {}),
  }),
  publisher('hashes-empty-target', 'a release with an empty `hashes`', onMalware({ hashes: {} })),
  publisher(
    'hashes-sha512-only',
    'a release with a SHA-512 digest only',
    onMalware({ hashes: { sha512: hex64.repeat(2) } }),
  ),
  publisher(
    'hashes-capitals',
    'a digest in capital digits',
    onMalware({ hashes: { sha256: 'A'.repeat(64) } }),
  ),
  publisher('hashes-short', 'a digest cut to 63 digits', onMalware({ hashes: { sha256: 'a'.repeat(63) } })),
  publisher('length-negative', 'a release of −1 bytes', onMalware({ length: -1 })),
  publisher('counter-negative', 'a release counter below zero', onMalware({ custom: { counter: -1 } })),
  publisher('counter-missing', 'a release without a counter', onMalware({ custom: {} })),
  publisher('counter-in-words', 'a release counter written as text', onMalware({ custom: { counter: '9' } })),
  publisher('floor-negative', 'a floor below zero', set('x-lepton', { floors: { detector: -1 } })),
  publisher(
    'floor-name',
    'a floor for a name that no model can have',
    set('x-lepton', { floors: { '../x': 1 } }),
  ),
  publisher(
    'withdrawn-name',
    'a withdrawal for a name that no model can have',
    set('x-lepton', { withdrawn: { '../x': [1] } }),
  ),
  publisher(
    'withdrawn-negative',
    'a withdrawn counter below zero',
    set('x-lepton', { withdrawn: { detector: [-1] } }),
  ),
  publisher(
    'withdrawn-many',
    'more withdrawn counters than the limit',
    set('x-lepton', { withdrawn: { detector: Array.from({ length: 10_001 }, (_, index) => 1_000 + index) } }),
  ),
  publisher('target-path-long', 'a release path of 600 characters', {
    change: (signed) =>
      (inside(signed, 'targets')[`acme/${'x'.repeat(600)}/1.0.0`] = inside(signed, 'targets', malware)),
  }),
  publisher(
    'target-length-lies',
    'a release whose listed size is not that of its manifest',
    {
      change: (signed) => (inside(signed, 'targets', malware)['length'] = 1),
    },
    'target-digest-mismatch',
  ),
  publisher(
    'target-digest-lies',
    'a release whose digest is not that of the manifest the director names',
    {
      change: (signed) => (inside(signed, 'targets', malware)['hashes'] = { sha256: hex64 }),
    },
    'target-digest-mismatch',
  ),
  publisher(
    'target-counter-lies',
    'a director that names another counter than the publisher',
    {
      change: (signed) => (inside(signed, 'targets', malware, 'custom')['counter'] = 99),
    },
    'release-counter-mismatch',
  ),
  publisher(
    'target-requires-lies',
    'a director that leaves out what the publisher requires',
    {
      change: (signed) => (inside(signed, 'targets', malware, 'custom')['requires'] = { opset: 99 }),
    },
    'release-requires-mismatch',
  ),
  publisher(
    'target-below-floor',
    'a release below the floor that its publisher signed',
    {
      change: (signed) => (signed['x-lepton'] = { floors: { detector: 1_000 } }),
    },
    'release-below-floor',
  ),
  publisher(
    'target-withdrawn',
    'a release that its publisher took back',
    {
      change: (signed) => {
        const { counter } = inside(signed, 'targets', malware, 'custom');
        signed['x-lepton'] = { withdrawn: { detector: [counter] } };
      },
    },
    'release-withdrawn',
  ),
  publisher(
    'listed-length-lies',
    'a snapshot that lists a publisher’s file as longer than it is',
    {
      listed: (meta) => {
        meta['length'] = Number(meta['length']) + 1;
      },
    },
    'metadata-digest-mismatch',
  ),
  publisher(
    'listed-length-short',
    'a snapshot that lists a publisher’s file as shorter than it is',
    {
      listed: (meta) => {
        meta['length'] = Number(meta['length']) - 1;
      },
    },
    'metadata-too-large',
  ),
  publisher(
    'listed-length-negative',
    'a snapshot that lists a size below zero',
    {
      listed: (meta) => {
        meta['length'] = -1;
      },
    },
    'metadata-malformed',
  ),
];

/** Listings whose wrongness refuses the snapshot itself, above every namespace. */
const limitsOfLists: AttackCase[] = [
  snapshot('snapshot-name-long', 'a snapshot that lists a name of 300 characters', {
    change: (signed) => (inside(signed, 'meta')[`${'x'.repeat(300)}.json`] = { version: 1 }),
  }),
  snapshot('snapshot-version-zero', 'a snapshot that lists version 0', {
    change: (signed) => (inside(signed, 'meta')['other.json'] = { version: 0 }),
  }),
  root('root-role-name-long', 'a root with a role of 200 characters', {
    change: (signed) => (inside(signed, 'roles')['r'.repeat(200)] = { keyids: [], threshold: 1 }),
  }),
  root('root-key-id-long', 'a root with a key id of 300 characters', {
    change: (signed) => (inside(signed, 'keys')['k'.repeat(300)] = Object.values(inside(signed, 'keys'))[0]),
  }),
  root('root-key-id-empty', 'a root with an empty key id', {
    change: (signed) => (inside(signed, 'keys')[''] = Object.values(inside(signed, 'keys'))[0]),
  }),
  root('root-region-name', 'a root of a region whose name is none', {
    change: (signed) => (signed['x-lepton'] = { kind: 'region', region: '../x' }),
  }),
  root('root-kind', 'a root of a kind that there is not', {
    change: (signed) => (signed['x-lepton'] = { kind: 'galaxy' }),
  }),
  root('root-holder-id-empty', 'a root with a key holder for an empty key id', {
    change: (signed) => (signed['x-lepton'] = { holders: { '': 'somebody' } }),
  }),
  root('root-holder-id-long', 'a root with a key holder for a key id of 300 characters', {
    change: (signed) => (signed['x-lepton'] = { holders: { ['k'.repeat(300)]: 'somebody' } }),
  }),
  targets('delegation-wrong-key-id', 'a publisher’s key under an id that is not its digest', {
    change: (signed) => {
      const keys = inside(signed, 'delegations', 'keys');
      keys[hex64] = Object.values(keys)[0];
    },
  }),
  root('root-holder-long', 'a root with a key holder of 200 characters', {
    change: (signed) => (signed['x-lepton'] = { holders: { somebody: 'h'.repeat(200) } }),
  }),
  targets('delegation-paths-many', 'a delegation of more than 1,000 paths', {
    change: (signed) => {
      const roles = inside(signed, 'delegations')['roles'] as Json[];
      Object.assign(roles[0] ?? {}, { paths: Array.from({ length: 1_001 }, (_, index) => `acme/${index}`) });
    },
  }),
  targets('delegation-path-long', 'a delegation with a path of 600 characters', {
    change: (signed) => {
      const roles = inside(signed, 'delegations')['roles'] as Json[];
      Object.assign(roles[0] ?? {}, { paths: ['p'.repeat(600)] });
    },
  }),
  onRepository(
    'listed-too-large',
    'a timestamp that lists a snapshot larger than the limit',
    'metadata-too-large',
    (evil) => {
      evil.publish('snapshot', {
        listed: (meta) => {
          meta['length'] = limits.snapshotBytesMax + 1;
        },
      });
    },
  ),
];

export const formatAttacks: AttackCase[] = [...texts, ...heads, ...listings, ...limitsOfLists];
