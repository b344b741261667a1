// Why: what a device says about a release from its store alone, without a refresh: at a start, and before each
// install. Somebody wrote into the store. Trusts: the hostile repository.
// Must never: reach the network; these rows ask the deciding functions.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { findRelease, type TrustState, verifyStoredCatalogue } from '../../shared/trust/tuf/client.ts';
import { parseTimestampFile } from '../../shared/trust/tuf/repository.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import { encode, HostileRepository, inside, signerNamed } from './hostile-repository.ts';

const detector = { namespace: 'acme', name: 'detector', version: '1.0.0' };
const mallory = [signerNamed('mallory')];

/** What a device holds of this repository; without the numbers, which a refresh adds. */
export function stateOf(repository: HostileRepository): TrustState {
  return {
    root: repository.bytes('root'),
    timestamp: repository.bytes('timestamp'),
    snapshot: repository.bytes('snapshot'),
    targets: repository.bytes('targets'),
    delegated: { acme: repository.bytes('acme'), beta: repository.bytes('beta') },
  };
}

function stored(
  id: string,
  attack: string,
  code: ErrorCode,
  spoil: (state: TrustState, repository: HostileRepository) => TrustState,
  ask: (state: TrustState) => Result<unknown> = (state) => verifyStoredCatalogue(state),
): AttackCase {
  return directRow('repository', `stored-${id}`, attack, code, () => {
    const repository = new HostileRepository();
    const honest = stateOf(repository);
    return { honest: ask(honest), forged: ask(spoil(honest, repository.fork())) };
  });
}

const release = (state: TrustState): Result<unknown> => findRelease(state, detector);

export const storedAttacks: AttackCase[] = [
  stored(
    'root-forged',
    'a stored root that other keys have signed',
    'metadata-signature-invalid',
    (state, evil) => {
      evil.publishRoot({ signers: mallory });
      return { ...state, root: evil.bytes('root') };
    },
  ),
  stored('root-garbage', 'a stored root that is no metadata', 'metadata-malformed', (state) => ({
    ...state,
    root: encode('{}'),
  })),
  ...(['timestamp', 'snapshot', 'targets'] as const).map((name) =>
    stored(`${name}-gone`, `a stored ${name} that is gone`, 'metadata-missing', (state) => ({
      ...state,
      [name]: null,
    })),
  ),
  stored(
    'snapshot-without-targets',
    'a stored snapshot that lists no targets, signed by stolen online keys',
    'metadata-missing',
    (state, evil) => {
      evil.publish('snapshot', { change: (signed) => delete inside(signed, 'meta')['targets.json'] });
      return { ...state, snapshot: evil.bytes('snapshot'), timestamp: evil.bytes('timestamp') };
    },
  ),
  stored(
    'timestamp-forged',
    'a stored timestamp that somebody else signed',
    'metadata-signature-invalid',
    (state, evil) => {
      evil.publish('timestamp', { signers: mallory });
      return { ...state, timestamp: evil.bytes('timestamp') };
    },
  ),
  ...(['snapshot', 'targets', 'acme'] as const).map((name) =>
    stored(
      `${name === 'acme' ? 'delegated' : name}-forged`,
      `a stored ${name === 'acme' ? 'publisher’s file' : name} with other bytes than are listed`,
      'metadata-digest-mismatch',
      (state, evil) => {
        const bytes = evil.publish(name, { signers: mallory, alone: true });
        return name === 'acme'
          ? { ...state, delegated: { ...state.delegated, acme: bytes } }
          : { ...state, [name]: bytes };
      },
    ),
  ),
  stored(
    'release-forged',
    'a release in a stored publisher’s file that was changed',
    'metadata-digest-mismatch',
    (state, evil) => ({
      ...state,
      delegated: { ...state.delegated, acme: evil.publish('acme', { signers: mallory, alone: true }) },
    }),
    release,
  ),
  stored(
    'release-gone',
    'a release whose publisher’s file is gone from the store',
    'metadata-missing',
    (state) => ({ ...state, delegated: {} }),
    release,
  ),
  directRow(
    'repository',
    'file-huge',
    'a timestamp padded beyond the limit of its role, handed to the reader by another way than the line',
    'metadata-too-large',
    () => {
      const file = new HostileRepository().bytes('timestamp');
      const huge = new Uint8Array(limits.timestampBytesMax + 1).fill(0x20);
      huge.set(file);
      return { honest: parseTimestampFile(file), forged: parseTimestampFile(huge) };
    },
  ),
];
