// Why: how a rollout begins: what its file is about, which devices its waves are for, and what is stored of it.
// Trusts: file.ts for the file. Must never: store a rollout of a release that nobody may install.

import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { ModelView } from '../../shared/wire/http.ts';
import type { RolloutFile, RolloutSpec } from '../../shared/wire/rollout-file.ts';
import type { RolloutPlan } from '../../shared/wire/rollout-plan.ts';
import type { Releases } from '../catalog/releases.ts';
import { toColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import { writeCompanions } from './companions.ts';
import { countMatching, factsOf } from './fact-reading.ts';
import type { RolloutFact, WaveFact } from './facts.ts';
import { pendingGates } from './gates.ts';
import { readGroups } from './groups.ts';
import { readOpen } from './others.ts';
import { planOf } from './plan.ts';
import { writeHistory, writeWave } from './records.ts';
import { isRemoval, removalOf } from './removal.ts';
import { namesOf } from './together.ts';
import { grown, wavesOf } from './waves.ts';

export interface RolloutStarting {
  /**
   * Stores the rollout and begins it. Refusals: `release-unknown`, `release-not-signed` (it waits for a second
   * signature), `release-withdrawn`, `release-below-floor`, `rollout-unsupported`, `group-unknown`, `policy-denied`. With an
   * id of the caller's it begins once, however often it is asked for.
   */
  begin(file: RolloutFile, createdBy: string, id?: string): Promise<Result<{ id: string }>>;
  /** Whether the catalogue has what the file is about, and lets it be installed. Refusals: those of `begin` about releases. */
  check(file: RolloutFile): Promise<Result<{ release: string; as: string }>>;
  /** What `begin` would do now, with the same refusals; nothing is stored. `rate`: bytes a second and device. */
  plan(file: RolloutFile, by: string, rate: number | null): Promise<Result<RolloutPlan>>;
}

function newWave(spec: RolloutSpec, index: number): WaveFact {
  const gates = pendingGates(spec, index);
  return { index, state: 'pending', reason: null, gates, startedAtMs: null, endedAtMs: null };
}

export function createRolloutStarting(parts: {
  region: string;
  store: RegistryStore;
  releases: Releases;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  /** There is a rollout that was not there before. */
  began(): void;
}): RolloutStarting {
  const { region, store, releases, clock, entropy, log } = parts;
  const { qb } = store;

  function insert(
    db: RegistryDb,
    id: string,
    file: RolloutFile,
    { as, release, companions = [] }: About,
    createdBy: string,
  ): void {
    db.run(
      qb.insertInto('rollouts').values({
        rollout_id: id,
        name: file.metadata.name,
        release_id: release.releaseId,
        as_name: as,
        manifest_sha256: release.manifestSha256,
        manifest_bytes: release.manifestBytes,
        counter: release.counter,
        spec: toColumn(file.spec),
        state: 'running',
        reason: null,
        ends_as: null,
        created_by: createdBy,
        created_at_ms: clock.wall(),
        ended_at_ms: null,
        priority: file.spec.priority,
      }),
    );
    writeCompanions(db, qb, id, companions);
    writeHistory(db, qb, id, {
      wave: null,
      what: 'running',
      by: createdBy,
      reason: null,
      atMs: clock.wall(),
    });
    for (const index of wavesOf(file.spec).keys()) writeWave(db, qb, id, newWave(file.spec, index));
  }

  /** `growth` becomes waves for as many devices as match now, so that everybody can see them. */
  function withWaves(file: RolloutFile, db: RegistryDb): RolloutFile {
    const { growth, ...spec } = file.spec;
    if (growth === undefined) return file;
    return {
      ...file,
      spec: { ...spec, waves: grown(growth, countMatching(db, qb, { selector: spec.selector, region })) },
    };
  }

  async function unknownRelease(namespace: string, releaseId: string) {
    const waiting = await releases.pending(namespace);
    if (waiting?.releaseId !== releaseId)
      return refuse('release-unknown', `the catalogue does not name ${releaseId}`);
    const { signatures, threshold } = waiting;
    return refuse('release-not-signed', `${releaseId} has ${signatures} of ${threshold} signatures`);
  }

  type About = Pick<RolloutFact, 'as' | 'release' | 'companions'>;

  /** One release of the catalogue. Refusals as `begin`. */
  async function releaseNamed(
    releaseId: string,
  ): Promise<Result<{ name: string; release: About['release'] }>> {
    const name = parseReleaseId(releaseId);
    if (name === null) return refuse('release-unknown', `${releaseId} is no NS/NAME@VERSION`);
    const found = await releases.find(releaseId);
    if (found === null) return unknownRelease(name.namespace, releaseId);
    if (found.barred !== null) return { ok: false, refusal: found.barred };
    const installable = await releases.installable(found);
    if (!installable.ok) return installable;
    const { manifestSha256, manifestBytes, counter, requires } = found;
    return ok({ name: name.name, release: { releaseId, manifestSha256, manifestBytes, counter, requires } });
  }

  /** What a file is about. Refusals as `begin`. */
  async function resolved(file: RolloutFile): Promise<Result<About>> {
    const { spec } = file;
    if (spec.remove !== undefined) {
      const known = await releases.show(spec.remove);
      if (!known.ok) return refuse('release-unknown', `the catalogue names no release of ${spec.remove}`);
      const [, name = ''] = spec.remove.split('/');
      return ok({ as: spec.as ?? name, release: removalOf(spec.remove) });
    }
    const [first = '', ...others] = spec.releases ?? [spec.release ?? ''];
    const own = await releaseNamed(first);
    if (!own.ok) return own;
    const { name, release } = own.value;
    const companions: { as: string; release: About['release'] }[] = [];
    for (const releaseId of others) {
      const other = await releaseNamed(releaseId);
      if (!other.ok) return other;
      companions.push({ as: other.value.name, release: other.value.release });
    }
    return ok({ as: spec.as ?? name, release, ...(companions.length === 0 ? {} : { companions }) });
  }

  /** Refusal: `group-unknown`. */
  function checkGroups(db: RegistryDb, { selector }: RolloutSpec): Result<void> {
    const known = readGroups(db, qb, selector.groups);
    const gone = selector.groups?.find((group) => !known.has(group));
    return gone === undefined
      ? ok(undefined)
      : refuse('group-unknown', `there is no group ${gone}: lepton groups list`);
  }

  const isThere = (db: RegistryDb, id: string): boolean =>
    db.first(qb.selectFrom('rollouts').select('rollout_id').where('rollout_id', '=', id)) !== undefined;

  async function begin(
    file: RolloutFile,
    createdBy: string,
    id = `r${Buffer.from(entropy.bytes(8)).toString('hex')}`,
  ): Promise<Result<{ id: string }>> {
    const about = await resolved(file);
    if (!about.ok) return about;
    const stored = await store.tx((db): Result<'new' | 'there'> => {
      if (isThere(db, id)) return ok('there');
      const checked = checkGroups(db, file.spec);
      if (!checked.ok) return checked;
      insert(db, id, withWaves(file, db), about.value, createdBy);
      return ok('new');
    });
    if (!stored.ok) return stored;
    if (stored.value === 'there') return ok({ id });
    log.emit('info', 'rollout.transition', {
      rolloutId: id,
      name: file.metadata.name,
      from: null,
      to: 'running',
    });
    parts.began();
    return ok({ id });
  }

  async function check(file: RolloutFile): Promise<Result<{ release: string; as: string }>> {
    const about = await resolved(file);
    return about.ok ? ok({ release: about.value.release.releaseId, as: about.value.as }) : about;
  }

  async function plan(file: RolloutFile, by: string, rate: number | null): Promise<Result<RolloutPlan>> {
    const about = await resolved(file);
    if (!about.ok) return about;
    const { as, release, companions = [] } = about.value;
    const models: ModelView[] = [];
    for (const one of isRemoval(release) ? [] : [release, ...companions.map((other) => other.release)]) {
      const shown = await releases.show(one.releaseId.split('@')[0] ?? '');
      if (!shown.ok) return shown;
      models.push(shown.value);
    }
    return store.tx((db) => {
      const checked = checkGroups(db, file.spec);
      if (!checked.ok) return checked;
      const { metadata, spec } = withWaves(file, db);
      const rollout: RolloutFact = {
        ...{ id: '', number: Number.MAX_SAFE_INTEGER, name: metadata.name, as, release, spec },
        ...{ createdBy: by, priority: spec.priority, waves: wavesOf(spec), state: 'running' },
        ...{ reason: null, endsAs: null, endedAtMs: null },
        ...(companions.length === 0 ? {} : { companions }),
      };
      const waves = [...wavesOf(spec).keys()].map((index) => newWave(spec, index));
      const options = { region, newcomers: true, nowMs: clock.wall(), changesMax: 0, reference: null };
      return ok(
        planOf({
          facts: factsOf(db, qb, rollout, waves, options),
          models,
          others: readOpen(db, qb, namesOf(rollout)),
          bytesPerSecond: rate,
        }),
      );
    });
  }

  return { begin, check, plan };
}
