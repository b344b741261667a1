// Why: the region's policy in force: how one comes into force, what it answers, and what went to other regions under it.
// Trusts: the region root in the store. Must never: put a policy in force that too few root keys have signed, or go back to
// an earlier version.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import {
  checkPolicy,
  policySigners,
  readPolicy,
  withPolicySignature,
} from '../../shared/trust/region-policy.ts';
import { type Envelope, envelopeSchema } from '../../shared/wire/messages.ts';
import type { PolicyVersion, PolicyView, RegionPolicy } from '../../shared/wire/region-policy.ts';
import type { Keyring } from '../signing/keys.ts';
import { createRoleFiles } from '../signing/role-files.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { FlowCountsTable, RegionPoliciesTable } from '../store/policy-tables.ts';
import type { MaskingPolicy } from '../telemetry/masking.ts';
import type { RegionPolicies, ReleasePolicy } from './flows.ts';
import { checkPolicyMeaning } from './policy-check.ts';
import { decideFlow, decideRelease, decideRetention, devicesMinDefault } from './region-decisions.ts';

export interface PolicyPut {
  status: 'in-force' | 'in-force-already';
  version: PolicyVersion;
}

export interface PolicyDesk extends RegionPolicies, ReleasePolicy {
  /** Null before the first one. */
  inForce(): RegionPolicy | null;
  view(): Promise<PolicyView>;
  /** Newest first. */
  history(): Promise<PolicyVersion[]>;
  /**
   * Puts it in force; the same one again changes nothing. Devices get its masking rules with their next assignments, which are
   * for the caller. Refusals: `policy-file-invalid`, `policy-other-region`, `policy-signature-invalid`, `policy-version-stale`.
   */
  put(
    envelope: Envelope,
    options: {
      by: string;
      masking: Pick<MaskingPolicy, 'announce' | 'require'>;
      /** In the same commit. */
      alongside?: (db: RegistryDb, version: PolicyVersion) => void;
    },
  ): Promise<Result<PolicyPut>>;
}

interface InForce {
  policy: RegionPolicy;
  envelope: Envelope;
  row: RegionPoliciesTable;
  signedBy: string[];
}

const dayMs = 86_400_000;

export async function openRegionPolicies(parts: {
  store: RegistryStore;
  region: string;
  keyring: Keyring;
  clock: Clock;
  log: Log;
}): Promise<PolicyDesk> {
  const { store, region, clock, log } = parts;
  const { qb } = store;
  const files = createRoleFiles({ qb, keyring: parts.keyring, region });
  const newestFirst = qb.selectFrom('region_policies').selectAll().orderBy('version', 'desc');
  let last: Promise<unknown> = Promise.resolve();

  function rootFrom(bytes: Uint8Array | null): RegionRoot {
    const root = bytes === null ? null : parseRegionRoot(new Uint8Array(bytes));
    if (root === null || !root.ok)
      throw new FleetError('state-corrupt', 'a region root of the store does not verify');
    return root.value;
  }
  const rootIn = (db: RegistryDb): RegionRoot => rootFrom(files.expect(db, 'region/root').bytes);

  function opened(db: RegistryDb, row: RegionPoliciesTable): InForce {
    // By the root of that time: its successor may name other keys, and what they have not signed yet stays in force.
    const root = rootFrom(files.read(db, `region/${row.root_version}.root.json`));
    const envelope = envelopeSchema.parse(JSON.parse(row.envelope));
    const policy = checkPolicy(envelope, root);
    if (policy.ok) return { policy: policy.value, envelope, row, signedBy: policySigners(envelope, root) };
    throw new FleetError('state-corrupt', `version ${row.version} of the policy: ${policy.refusal.detail}`);
  }

  let present = await store.tx((db) => {
    const row = db.first(newestFirst.limit(1));
    return row === undefined ? null : opened(db, row);
  });

  const versionOf = ({ row, signedBy }: InForce): PolicyVersion => ({
    ...{ version: row.version, name: row.name, sha256: row.sha256, signedBy },
    ...{ rootVersion: row.root_version, putBy: row.put_by, putAtMs: row.put_at_ms },
  });

  /** In development the registry holds root keys; it adds no more than are missing. */
  function signedWithHeld(envelope: Envelope, root: RegionRoot): Envelope {
    const { keys, threshold } = root.roles.root;
    const signed = policySigners(envelope, root);
    return keys
      .filter(({ keyId }) => !signed.includes(keyId))
      .flatMap(({ publicKey }) => parts.keyring.held(publicKey) ?? [])
      .slice(0, Math.max(0, threshold - signed.length))
      .reduce(withPolicySignature, envelope);
  }

  /** What would be in force; null where it is already. */
  function judged(db: RegistryDb, offered: Envelope, by: string): Result<InForce | null> {
    const read = readPolicy(offered);
    if (!read.ok) return read;
    const { metadata } = read.value;
    if (metadata.region !== region)
      return refuse('policy-other-region', `the policy is of region ${metadata.region}, this is ${region}`);
    const [problem] = checkPolicyMeaning(read.value).filter(({ level }) => level === 'problem');
    if (problem !== undefined) return refuse('policy-file-invalid', `${problem.where}: ${problem.message}`);
    const sha256 = sha256Hex(new Uint8Array(Buffer.from(offered.payload, 'base64')));
    const newest = db.first(newestFirst.limit(1));
    if (newest !== undefined && newest.version === metadata.version && newest.sha256 === sha256)
      return ok(null);
    if (newest !== undefined && metadata.version <= newest.version)
      return refuse(
        'policy-version-stale',
        `version ${metadata.version} is offered and version ${newest.version} is in force`,
      );
    const root = rootIn(db);
    const envelope = signedWithHeld(offered, root);
    const policy = checkPolicy(envelope, root);
    if (!policy.ok) return policy;
    const row: RegionPoliciesTable = {
      ...{ version: metadata.version, name: metadata.name, sha256, envelope: JSON.stringify(envelope) },
      ...{ root_version: root.version, put_by: by, put_at_ms: clock.wall() },
    };
    return ok({ policy: policy.value, envelope, row, signedBy: policySigners(envelope, root) });
  }

  const already = (): Result<PolicyPut> => {
    if (present === null) throw new FleetError('internal', 'a policy is stored and none was opened');
    return ok({ status: 'in-force-already', version: versionOf(present) });
  };

  async function put(
    envelope: Envelope,
    options: Parameters<PolicyDesk['put']>[1],
  ): Promise<Result<PolicyPut>> {
    const first = await store.tx((db) => judged(db, envelope, options.by));
    if (!first.ok) return first;
    if (first.value === null) return already();
    const { masking } = first.value.policy.spec;
    // Before the commit: an end in between makes assignments be signed once more than needed, never once too seldom.
    const announced = await options.masking.announce(masking);
    if (!announced.ok) return announced;
    const stored = await store.tx((db) => {
      const next = judged(db, envelope, options.by);
      if (next.ok && next.value !== null) {
        db.run(qb.insertInto('region_policies').values(next.value.row));
        options.alongside?.(db, versionOf(next.value));
      }
      return next;
    });
    if (!stored.ok) return stored;
    if (stored.value === null) return already();
    present = stored.value;
    options.masking.require(masking);
    const version = versionOf(stored.value);
    const { sha256, name, signedBy } = version;
    log.emit('warn', 'policy.in-force', {
      version: version.version,
      name,
      sha256,
      signedBy,
      user: options.by,
    });
    return ok({ status: 'in-force', version });
  }

  /** What is counted while the store is busy is written in one commit: a mirror asks for a file in many parts. */
  let waiting = new Map<string, FlowCountsTable>();
  let writing: Promise<void> | null = null;

  function writeCountsIn(db: RegistryDb): void {
    const due = waiting;
    [waiting, writing] = [new Map(), null];
    for (const row of due.values())
      db.run(
        qb
          .insertInto('flow_counts')
          .values(row)
          .onConflict((conflict) =>
            conflict.columns(['day', 'flow', 'destination', 'rule', 'allowed']).doUpdateSet((eb) => ({
              requests: eb('flow_counts.requests', '+', row.requests),
              records: eb('flow_counts.records', '+', row.records),
              bytes: eb('flow_counts.bytes', '+', row.bytes),
            })),
          ),
      );
  }

  return {
    inForce: () => present?.policy ?? null,

    async view() {
      const now = present;
      if (now === null) return { region, inForce: null };
      const olderRoot = await store.tx((db) => !checkPolicy(now.envelope, rootIn(db)).ok);
      const { policy, envelope } = now;
      return { region, inForce: { ...versionOf(now), policy, envelope, olderRoot } };
    },

    history: () => store.tx((db) => db.all(newestFirst).map((row) => versionOf(opened(db, row)))),

    put(envelope, options) {
      const next = last.then(() => put(envelope, options));
      last = next.catch(() => undefined);
      return next;
    },

    flow: (flow, destination) => decideFlow(present?.policy ?? null, region, flow, destination),
    cellDevicesMin: () => present?.policy.spec.cells.devicesMin ?? devicesMinDefault,
    retentionMs: (telemetryClass) => decideRetention(present?.policy ?? null, telemetryClass),
    admits: (release) => decideRelease(present?.policy ?? null, release),

    count({ flow, destination, decision, bytes, records }) {
      const day = Math.floor(clock.wall() / dayMs);
      const row = { day, flow, destination, rule: decision.rule, allowed: decision.allowed ? 1 : 0 };
      const key = JSON.stringify(row);
      const sum = waiting.get(key) ?? { ...row, requests: 0, records: 0, bytes: 0 };
      sum.requests += 1;
      sum.records += records;
      sum.bytes += bytes;
      waiting.set(key, sum);
      // Begun a turn later: the work says that it has taken what waited, and must not say so before this is set.
      writing ??= Promise.resolve()
        .then(() => store.tx(writeCountsIn))
        .catch((thrown: unknown) => {
          writing = null;
          throw thrown;
        });
      return writing;
    },
  };
}
