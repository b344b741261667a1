// Why: what an attack is in this suite: one line in plain English, one literal code, one run against the real
// client. The table in SECURITY.md is made of these rows alone.
// Trusts: nothing. Must never: hold a row that passes without its attack having been tried.

import assert from 'node:assert/strict';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import type { AuditFindingKind } from '../../shared/trust/audit-chain.ts';
import type { TrustState } from '../../shared/trust/tuf/client.ts';
import type { AssignedRelease } from '../../shared/wire/messages.ts';
import type { HostileRepository } from './hostile-repository.ts';
// Its type alone: the mutation run must not load a broker.
import type { WireLab } from './wire-bench.ts';

export interface AttackCase {
  /** Stable, unique over all groups; never reused. */
  id: string;
  group: 'repository' | 'fleet' | 'region' | 'audit' | 'upload' | 'ceremony';
  /** One line: who holds what and tries what. */
  attack: string;
  /** The refusal it must meet, or as what an auditor must find it. */
  code: ErrorCode | AuditFindingKind;
  /** `wire`: shown through the broker, over TLS, by the whole agent; `direct`: by the deciding function alone. */
  where: 'wire' | 'direct';
  /** Who refuses it; where absent, the one whom the group in attack-table.ts names. */
  by?: 'device' | 'registry' | 'broker';
  /** Passes only after that branch was merged; the integrator removes the mark. */
  needs?: 'tuf';
  /** Cannot be run without a broker, so the mutation run leaves it out. */
  wireOnly?: true;
  /** Tries it; the code of the refusal, or `accepted` where the attack got through. */
  run(bench: Bench): Promise<string>;
}

/** Where labs are built: in memory, or on a broker that the group shares. */
export interface Bench {
  kind: 'direct' | 'wire';
  open(): Promise<Lab>;
  close(): Promise<void>;
}

/** How a hostile registry answers for one file where it does not simply send bytes. */
export type Trick =
  /** Announces and sends without an end. */
  | 'endless'
  /** Sends nothing, and never says so. */
  | 'silent';

/** A device under attack. */
export interface Lab {
  /** The repository that the device believed in so far; honest. */
  readonly honest: HostileRepository;
  /** From now on the device hears this repository. */
  serve(repository: HostileRepository, tricks?: Readonly<Record<string, Trick>>): void;
  /**
   * The region's director assigns these releases, as they are named in the repository that is served (a stolen
   * director would name just these bytes too). The refusal's code, or `accepted`.
   */
  update(...paths: string[]): Promise<string>;
  /** The same with an assignment made by the caller. */
  assign(releases: readonly AssignedRelease[]): Promise<string>;
  /** What the device has stored of the catalogue. */
  held(): Promise<TrustState>;
  /** Stops the device, edits its database, starts it again. */
  edit(work: (db: SqlTx) => void): Promise<void>;
  /** What the device's own clock says from now on; null for the real time. */
  setClock(wallMs: number | null): void;
  close(): Promise<void>;
}

/** Opens a lab for one attack and closes it whatever comes. */
export async function withLab(bench: Bench, work: (lab: Lab) => Promise<string>): Promise<string> {
  const lab = await bench.open();
  try {
    return await work(lab);
  } finally {
    await lab.close();
  }
}

function isWire(lab: Lab): lab is WireLab {
  return 'registry' in lab;
}

/** The same for a row that needs the hostile registry itself; mark such a row `wireOnly`. */
export function withWireLab(bench: Bench, work: (lab: WireLab) => Promise<string>): Promise<string> {
  return withLab(bench, (lab) => {
    assert.ok(isWire(lab), 'this row needs the wire');
    return work(lab);
  });
}

/** The files of a state in a form that a failed assertion prints shortly. */
export function summary(state: TrustState): Record<string, string | null> {
  const short = (bytes: Uint8Array | null): string | null =>
    bytes === null ? null : `${bytes.length} bytes, version ${versionIn(bytes)}`;
  return {
    timestamp: short(state.timestamp),
    snapshot: short(state.snapshot),
    targets: short(state.targets),
    ...Object.fromEntries(Object.entries(state.delegated).map(([name, bytes]) => [name, short(bytes)])),
  };
}

function versionIn(bytes: Uint8Array): string {
  const file = JSON.parse(Buffer.from(bytes).toString('utf8')) as { signed: { version: number } };
  return String(file.signed.version);
}

/** Everything but the root: a root that was verified is kept at once, whatever comes of the rest (TUF §5.3.8). */
export function assertNothingStored(before: TrustState, after: TrustState): void {
  const { root: _before, ...filesBefore } = before;
  const { root: _after, ...filesAfter } = after;
  assert.deepEqual(summary(after), summary(before), 'the attack left something in the store');
  assert.deepEqual(
    [filesAfter.timestamp, filesAfter.snapshot, filesAfter.targets, filesAfter.delegated],
    [filesBefore.timestamp, filesBefore.snapshot, filesBefore.targets, filesBefore.delegated],
  );
}

/** The release that attacks try to bring in. */
export const malware = 'acme/detector/6.6.6';

export interface RowOptions {
  needs?: 'tuf';
  /** What the honest repository published before the device's last honest update. */
  before?: (honest: HostileRepository) => void;
  /** What the device is assigned while the attack lasts; the attacker's own release where absent. */
  asks?: string;
  tricks?: Readonly<Record<string, Trick>>;
  /** The attack may leave verified files behind (a namespace is refused, the files above it are good). */
  keeps?: true;
  /** The attack used keys with which it moved the numbers: the honest repository must go beyond them. */
  heals?: (honest: HostileRepository, evil: HostileRepository) => void;
}

/**
 * A row on the repository: the device takes one honest update, then hears the attacker's copy, in which
 * `spoil` did its work, then the honest repository again, which must still move it.
 */
export function onRepository(
  id: string,
  attack: string,
  code: ErrorCode,
  spoil: (evil: HostileRepository, honest: HostileRepository) => void,
  options: RowOptions = {},
): AttackCase {
  return {
    id,
    group: 'repository',
    attack,
    code,
    where: 'wire',
    ...(options.needs === undefined ? {} : { needs: options.needs }),
    run: (bench) =>
      withLab(bench, async (lab) => {
        options.before?.(lab.honest);
        lab.honest.release('acme/detector/1.1.0');
        assert.equal(await lab.update('acme/detector/1.1.0'), 'accepted', 'the honest update before');
        const before = await lab.held();
        const evil = lab.honest.fork();
        evil.addRelease(malware);
        spoil(evil, lab.honest);
        lab.serve(evil, options.tricks);
        const observed = await lab.update(options.asks ?? malware);
        if (options.keeps !== true) assertNothingStored(before, await lab.held());
        await assertStillUpdates(lab, evil, options.heals);
        return observed;
      }),
  };
}

/** The honest repository is back, and its next release must reach the device. */
export async function assertStillUpdates(
  lab: Lab,
  evil: HostileRepository,
  heals: RowOptions['heals'] = () => undefined,
): Promise<void> {
  const { honest } = lab;
  heals(honest, evil);
  honest.release('acme/detector/1.2.0');
  lab.serve(honest);
  assert.equal(await lab.update('acme/detector/1.2.0'), 'accepted', 'the honest update afterwards');
}
