// Why: refreshes of the catalogue client from states that a device is rarely seen in: power failed between two
// files, an old store, a root that fell back. Trusts: the hostile repository.
// Must never: keep what a refresh refused.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { findRelease, refreshCatalogue, type TrustState } from '../../shared/trust/tuf/client.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import { encode, HostileRepository, nowMs, signerNamed } from './hostile-repository.ts';
import { rotate } from './repository-healing.ts';
import { stateOf } from './repository-stored.ts';

const mallory = signerNamed('mallory');
const highest = Number.MAX_SAFE_INTEGER;
const soonMs = 1_000;

function refresh(
  state: TrustState,
  repository: HostileRepository,
  { atMs = nowMs, namespaces = ['acme'], asked = [] as string[] } = {},
): Promise<Result<TrustState>> {
  return refreshCatalogue({
    state,
    fetcher: {
      fetch: async (name) => {
        asked.push(name);
        const bytes = repository.files.get(name);
        return bytes === undefined ? refuse('metadata-missing', name) : ok(bytes);
      },
    },
    nowMs: atMs,
    namespaces,
    saveRoot: async () => undefined,
  });
}

/** What a device holds after a refresh, numbers and all. */
const heldOf = async (repository: HostileRepository): Promise<TrustState> =>
  unwrap(await refresh(stateOf(repository), repository));

function forget<K extends keyof TrustState>(state: TrustState, key: K): Omit<TrustState, K> {
  const { [key]: _forgotten, ...rest } = state;
  return rest;
}

const onHeldRoot = (
  id: string,
  attack: string,
  code: ErrorCode,
  root: (evil: HostileRepository) => Uint8Array,
): AttackCase =>
  directRow('repository', `refresh-root-${id}`, attack, code, async () => {
    const repository = new HostileRepository();
    const held = await heldOf(repository);
    return {
      honest: refresh(held, repository),
      forged: refresh({ ...held, root: root(repository.fork()) }, repository),
    };
  });

/** Whether the device asks for the file of this namespace at all. */
async function asks(repository: HostileRepository, namespace: string): Promise<Result<void>> {
  const asked: string[] = [];
  const start = { ...stateOf(repository), delegated: {} };
  unwrap(await refresh(start, repository, { namespaces: [namespace], asked }));
  return asked.some((name) => name.endsWith(`.${namespace}.json`))
    ? ok()
    : refuse('target-unknown', namespace);
}

/** What a device that was started anew says about the release; why a namespace was refused is not stored. */
async function afterRestart(state: TrustState, repository: HostileRepository, atMs: number) {
  const refreshed = unwrap(await refresh(state, repository, { atMs }));
  return findRelease(forget(refreshed, 'refused'), {
    namespace: 'acme',
    name: 'detector',
    version: '1.0.0',
  });
}

export const refreshAttacks: AttackCase[] = [
  onHeldRoot(
    'no-metadata',
    'a refresh from a stored root that is no metadata any more: the disk failed, nobody attacked',
    'state-corrupt',
    () => encode('{}'),
  ),
  onHeldRoot(
    'forged',
    'a refresh from a stored root that somebody else signed',
    'metadata-signature-invalid',
    (evil) => evil.publishRoot({ version: 1, signers: [mallory] }),
  ),
  directRow(
    'repository',
    'refresh-root-fell-back',
    'the stored root fell back to the one before a rotation, and the registry goes back with it',
    'metadata-rollback',
    async () => {
      const repository = new HostileRepository();
      const [root, yesterday] = [repository.bytes('root'), repository.fork()];
      rotate(repository, 'timestamp');
      repository.publish('timestamp');
      const held = { ...(await heldOf(repository)), root };
      return { honest: refresh(held, repository), forged: refresh(held, yesterday) };
    },
  ),
  directRow(
    'repository',
    'refresh-root-unrotated',
    'a next root that leaves the online keys as they are, and an older catalogue behind it',
    'metadata-rollback',
    async () => {
      const repository = new HostileRepository();
      const yesterday = repository.fork();
      repository.release('acme/detector/1.1.0');
      const held = await heldOf(repository);
      repository.publishRoot();
      yesterday.files.set('2.root.json', repository.bytes('root'));
      return { honest: refresh(held, repository), forged: refresh(held, yesterday) };
    },
  ),
  ...(
    [
      ['timestamp', 'power fails behind the root that throws it out', (state: TrustState) => state],
      [
        'snapshot',
        'an old store, which kept no numbers, holds the root that throws it out',
        (state: TrustState) => forget(state, 'numbers'),
      ],
    ] as const
  ).map(([name, then, keep]) =>
    directRow(
      'repository',
      `refresh-after-fast-forward-${name}`,
      `a stolen ${name} key signs the highest version there is, and goes on when ${then}`,
      'metadata-signature-invalid',
      async () => {
        const repository = new HostileRepository();
        const evil = repository.fork();
        evil.publish(name, { version: highest });
        const held = keep(await heldOf(evil));
        rotate(repository, name);
        repository.publish('snapshot');
        evil.files.set('2.root.json', repository.bytes('root'));
        const state = { ...held, root: repository.bytes('root') };
        return { honest: refresh(state, repository), forged: refresh(state, evil) };
      },
    ),
  ),
  directRow(
    'repository',
    'refresh-expired-and-restarted',
    'a held publisher’s file has expired, and a restart forgets that it was refused',
    'metadata-missing',
    async () => {
      const repository = new HostileRepository();
      repository.publish('acme', { expiresAtMs: nowMs + soonMs });
      const held = await heldOf(repository);
      return {
        honest: afterRestart(held, repository, nowMs),
        forged: afterRestart(held, repository, nowMs + 2 * soonMs),
      };
    },
  ),
  directRow(
    'repository',
    'refresh-undelegated',
    'a stolen snapshot key lists a file that no delegation names, for devices to fetch',
    'target-unknown',
    async () => {
      const evil = new HostileRepository();
      evil.roles['ghost'] = { keys: [mallory], threshold: 1 };
      evil.signed['ghost'] = { ...evil.current('acme'), targets: {} };
      evil.publish('ghost');
      return { honest: asks(evil, 'acme'), forged: asks(evil, 'ghost') };
    },
  ),
];
