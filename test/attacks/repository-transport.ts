// Why: what a registry, a broker or a line can do to files on their way: change, cut, swap, grow, withhold.
// Trusts: the hostile repository, whose files are all well signed until they are sent.
// Must never: hold a key; these attackers have none, unless the row says so.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { type AttackCase, onRepository } from './attack-case.ts';
import { encode, type HostileRepository } from './hostile-repository.ts';
import { goBeyond } from './repository-healing.ts';

const fileRoles = ['root', 'timestamp', 'snapshot', 'targets', 'acme'] as const;
type FileRole = (typeof fileRoles)[number];

const words: Record<FileRole, string> = {
  root: 'root',
  timestamp: 'timestamp',
  snapshot: 'snapshot',
  targets: 'targets',
  acme: 'publisher’s file',
};
const idOf = (role: FileRole): string => (role === 'acme' ? 'delegated' : role);

/** Publishes the malware and a new file of every role, so that each of them has to be fetched. */
function publishAll(evil: HostileRepository): void {
  evil.publishRoot();
  evil.publish('targets', { alone: true });
  evil.list('targets');
  evil.publish('acme');
}

function onItsWay(
  role: FileRole,
  what: string,
  attack: string,
  code: ErrorCode,
  change: ((file: Uint8Array) => Uint8Array | null) | 'silent' | 'endless',
): AttackCase {
  const tricks: Record<string, 'silent' | 'endless'> = {};
  return onRepository(
    `${what}-${idOf(role)}`,
    attack,
    code,
    (evil) => {
      publishAll(evil);
      const name = evil.fileName(role);
      if (typeof change === 'string') {
        tricks[name] = change;
        return;
      }
      const sent = change(evil.bytes(role));
      if (sent === null) evil.files.delete(name);
      else evil.files.set(name, sent);
    },
    {
      tricks,
      // A root that was verified is kept; a namespace that is refused does not hold up the files above it.
      heals: (honest, evil) => {
        const root = evil.files.get('2.root.json');
        if (role !== 'root' && root !== undefined) honest.files.set('2.root.json', root);
        if (role === 'acme') goBeyond(honest, evil);
      },
      ...(role === 'acme' && change !== 'silent' ? { keeps: true as const } : {}),
    },
  );
}

/** The last digit of the version, which stands near the end of the signed part. */
function tamper(file: Uint8Array): Uint8Array {
  const changed = new Uint8Array(file);
  const at = Buffer.from(file).indexOf('"version":') + 10;
  changed[at] = (changed[at] ?? 0) ^ 1;
  return changed;
}

const cut = (file: Uint8Array): Uint8Array => file.subarray(0, file.length - 20);
const grown = (bytesMax: number) => (file: Uint8Array) => {
  const large = new Uint8Array(bytesMax + 1).fill(0x20);
  large.set(file);
  return large;
};
const isListed = (role: FileRole): boolean => role !== 'root' && role !== 'timestamp';

/** Online keys list a file of one role where another belongs, with its true digest. */
function swapped(into: string, from: string, attack: string, code: ErrorCode): AttackCase {
  return onRepository(
    `${from === 'acme' ? 'delegated' : from}-as-${into === 'acme' ? 'delegated' : into}`,
    attack,
    code,
    (evil, honest) => {
      evil.publish('acme', { alone: true });
      evil.list('acme');
      const version = honest.version(into) + 1;
      evil.publish(from, { version, alone: true });
      evil.signed[into] = { ...evil.current(into), version };
      evil.files.set(evil.fileName(into), evil.bytes(from));
      if (into === 'timestamp') return;
      evil.list(into);
      evil.publish(into === 'snapshot' ? 'timestamp' : 'snapshot');
    },
    into === 'acme' ? { keeps: true, heals: goBeyond } : {},
  );
}

export const transportAttacks: AttackCase[] = [
  ...fileRoles.map((role) =>
    onItsWay(
      role,
      'tampered',
      `a changed byte in the ${words[role]} on its way`,
      isListed(role) ? 'metadata-digest-mismatch' : 'metadata-signature-invalid',
      tamper,
    ),
  ),
  ...fileRoles.map((role) =>
    onItsWay(
      role,
      'truncated',
      `a ${words[role]} that ends early`,
      isListed(role) ? 'metadata-digest-mismatch' : 'metadata-malformed',
      cut,
    ),
  ),
  ...fileRoles.map((role) =>
    onItsWay(
      role,
      'oversize',
      `a ${words[role]} of more bytes than ${isListed(role) ? 'are listed' : 'the limit'}`,
      'metadata-too-large',
      grown(role === 'root' ? limits.rootBytesMax : limits.timestampBytesMax),
    ),
  ),
  ...fileRoles.map((role) =>
    onItsWay(role, 'endless', `a ${words[role]} that never ends`, 'metadata-too-large', 'endless'),
  ),
  ...fileRoles.map((role) =>
    onItsWay(role, 'silent', `a ${words[role]} that never comes`, 'fetch-timeout', 'silent'),
  ),
  ...fileRoles
    .filter((role) => role !== 'root')
    .map((role) =>
      onItsWay(
        role,
        'withheld',
        `a ${words[role]} that the registry says it does not have`,
        'metadata-missing',
        () => null,
      ),
    ),
  onItsWay('timestamp', 'empty', 'an empty timestamp', 'metadata-malformed', () => encode('')),
  swapped('timestamp', 'snapshot', 'the snapshot served as timestamp', 'metadata-malformed'),
  swapped(
    'snapshot',
    'targets',
    'a stolen timestamp key lists the targets file as snapshot',
    'metadata-malformed',
  ),
  swapped(
    'targets',
    'acme',
    'stolen online keys list a publisher’s file as targets',
    'metadata-signature-invalid',
  ),
  swapped('targets', 'snapshot', 'stolen online keys list a snapshot as targets', 'metadata-malformed'),
  swapped(
    'acme',
    'targets',
    'stolen online keys list the targets file as a publisher’s',
    'metadata-signature-invalid',
  ),
  swapped(
    'acme',
    'beta',
    'stolen online keys list one publisher’s file as another’s',
    'metadata-signature-invalid',
  ),
];
