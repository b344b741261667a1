// Why: models that switch together: none before all of them can, and none stays where one went back, whatever happens
// in between. Trusts: the simulated runtime for what serves. Must never: look at fewer models than the rollout has.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Kind, outcomes } from '../../firmware-sim/catalogue.ts';
import { refuse } from '../../shared/kernel/result.ts';
import type { Assignment } from '../../shared/wire/messages.ts';
import { createRig, type Rig, type RigOverrides, type RigTerms } from './rig.ts';

const names = ['alpha', 'beta', 'gamma'];

function bundle(rig: Rig, epoch: number, wanted: Record<string, string>, terms: RigTerms = {}): Assignment {
  const assignment = rig.assignment(epoch, wanted, { rolloutId: `bundle-${epoch}`, soakMs: 2_000, ...terms });
  const all = Object.keys(wanted);
  for (const release of assignment.releases) release.policy.together = all.filter((as) => as !== release.as);
  return assignment;
}

const keysOf = (kinds: readonly string[], number: number): Record<string, string> =>
  Object.fromEntries(kinds.map((kind, at) => [names[at] ?? '', `${names[at]}/${kind}/${number}`]));

/** Which release of each model serves, by its number. */
function served(rig: Rig, numbers: readonly number[]): (number | null)[] {
  return names.map((as) => {
    const sha256 = rig.runtime.serving.get(as);
    const number = numbers.find((one) =>
      Object.keys(outcomes).some(
        (kind) => rig.catalogue.release(`${as}/${kind}/${one}`).manifestSha256 === sha256,
      ),
    );
    return sha256 === undefined ? null : (number ?? null);
  });
}

const codes = (rig: Rig): (string | undefined)[] => rig.updater.models().map(({ reason }) => reason?.code);
const states = (rig: Rig): string[] => rig.updater.models().map(({ state }) => state);

/** All three run release 0, each by a rollout of its own. */
async function ground(overrides: RigOverrides = {}): Promise<Rig> {
  const rig = await createRig(overrides);
  await rig.settle(rig.updater.assign(rig.assignment(1, keysOf(['good', 'good', 'good'], 0))));
  assert.deepEqual(served(rig, [0]), [0, 0, 0]);
  return rig;
}

test('none switches before all have passed their probe', async () => {
  const rig = await ground();
  const seen: string[] = [];
  rig.onChange = (models) => {
    const switched = models.filter(({ state }) => ['switching', 'soaking'].includes(state));
    const behind = models.filter(
      ({ state, reason }) =>
        !['switching', 'soaking', 'committed'].includes(state) && reason?.code !== 'update-together',
    );
    seen.push(models.map(({ state }) => state).join());
    const ready = models.every(({ state, probe }) => state === 'committed' || probe !== null);
    assert.ok(switched.length === 0 || (behind.length === 0 && ready), seen.at(-1));
  };
  await rig.settle(rig.updater.assign(bundle(rig, 2, keysOf(['good', 'good', 'good'], 1))));
  assert.deepEqual(states(rig), ['committed', 'committed', 'committed']);
  assert.deepEqual(served(rig, [0, 1]), [1, 1, 1]);
  const waited = rig.changes.flat().filter(({ reason }) => reason?.code === 'update-together');
  assert.ok(waited.length > 0, 'nobody waited for anybody');
});

const bad = (Object.keys(outcomes) as Kind[]).filter((kind) => kind !== 'good' && kind !== 'disagrees');
for (const kind of bad)
  test(`none stays where one is ${kind}`, async () => {
    const rig = await ground();
    await rig.settle(rig.updater.assign(bundle(rig, 2, keysOf(['good', kind, 'good'], 1))));
    assert.deepEqual(states(rig), ['idle', 'idle', 'idle']);
    assert.deepEqual(codes(rig), ['update-parted', outcomes[kind], 'update-parted']);
    assert.deepEqual(served(rig, [0, 1]), [0, 0, 0]);
    // The same rollout again changes nothing; another one may.
    await rig.settle(rig.updater.assign(bundle(rig, 2, keysOf(['good', kind, 'good'], 1))));
    assert.deepEqual(served(rig, [0, 1]), [0, 0, 0]);
    await rig.settle(rig.updater.assign(bundle(rig, 3, keysOf(['good', 'good', 'good'], 1))));
    assert.deepEqual(served(rig, [0, 1]), [1, 1, 1]);
  });

test('a first install of all or of none', async () => {
  const rig = await createRig();
  await rig.settle(rig.updater.assign(bundle(rig, 1, keysOf(['good', 'good', 'fails-in-service'], 1))));
  assert.deepEqual(served(rig, [1]), [null, null, null]);
  await rig.settle(rig.updater.assign(bundle(rig, 2, keysOf(['good', 'good', 'good'], 1))));
  assert.deepEqual(served(rig, [1]), [1, 1, 1]);
});

for (const soakMs of [0, 200])
  test(`a first install that soaks ${soakMs} ms: none is committed before all have soaked`, async () => {
    // Whoever is first: what it goes back to is nothing, so once it is committed it would stay.
    for (const at of [0, 1, 2]) {
      const rig = await createRig();
      const kinds = names.map((_, index) => (index === at ? 'fails-in-service' : 'good'));
      await rig.settle(rig.updater.assign(bundle(rig, 1, keysOf(kinds, 1), { soakMs })));
      assert.deepEqual(served(rig, [1]), [null, null, null], kinds.join());
      assert.ok(!rig.changes.flat().some(({ state }) => state === 'committed'), kinds.join());
    }
    const rig = await createRig();
    const soaking = new Set<string>();
    rig.onChange = (models) => {
      if (models.some(({ state }) => state === 'committed'))
        assert.ok(models.every(({ state }) => state === 'committed' || state === 'soaking'));
      for (const { name, state } of models) if (state === 'soaking') soaking.add(name);
    };
    await rig.settle(rig.updater.assign(bundle(rig, 1, keysOf(['good', 'good', 'good'], 1), { soakMs })));
    assert.deepEqual([served(rig, [1]), [...soaking].sort()], [[1, 1, 1], names]);
  });

/** As far as a first install where one is committed on the word of others, which soak still. */
async function decided(): Promise<{ rig: Rig; wanted: Assignment; soaking: string[] }> {
  const rig = await createRig();
  const wanted = bundle(rig, 1, keysOf(['good', 'good', 'good'], 1), { soakMs: 0 });
  void rig.updater.assign(wanted).catch(() => undefined);
  for (let turn = 0; turn < 9_000; turn += 1) {
    await rig.world.run(rig.world.nowMs() + 1);
    if (!states(rig).includes('committed')) continue;
    const soaking = names.filter((_, at) => states(rig)[at] === 'soaking');
    assert.ok(soaking.length > 1, states(rig).join());
    return { rig, wanted, soaking };
  }
  throw new Error(`none was committed: ${states(rig).join()}`);
}

const sick =
  (who: readonly string[]): NonNullable<RigOverrides['runtime']> =>
  (real) => ({
    ...real,
    healthy: (as) =>
      who.includes(as) ? Promise.resolve(refuse('model-crashed', 'just now')) : real.healthy(as),
  });

test('what soaked is bound by it once another is committed on its word, also after a power cut', async () => {
  const { rig, wanted, soaking } = await decided();
  await rig.reboot({ inForce: wanted, runtime: sick(soaking) });
  await rig.settle();
  assert.deepEqual(states(rig), ['committed', 'committed', 'committed']);
});

test('a later rollout that takes one of them when another is committed leaves the third where it is', async () => {
  const { rig, soaking } = await decided();
  const [taken, left] = soaking;
  assert.ok(taken !== undefined && left !== undefined);
  const later = bundle(rig, 2, keysOf(['good', 'good', 'good'], 1), { rolloutId: 'bundle-1', soakMs: 0 });
  const [own] = rig.assignment(2, { [taken]: `${taken}/good/2` }, { rolloutId: 'later' }).releases;
  assert.ok(own);
  later.releases = later.releases.map((one) => (one.as === taken ? own : one));
  await rig.settle(rig.updater.assign(later));
  assert.deepEqual(
    served(rig, [1, 2]),
    names.map((as) => (as === taken ? 2 : 1)),
  );
  assert.deepEqual(states(rig), ['committed', 'committed', 'committed']);
});

test('what ran before this rollout is not taken back with it', async () => {
  const rig = await ground();
  // It has something to go back to, and no reason.
  const alone = { ...keysOf(['good', 'good', 'good'], 0), alpha: 'alpha/good/2' };
  await rig.settle(rig.updater.assign(rig.assignment(2, alone)));
  const wanted = { ...keysOf(['good', 'slow'], 1), alpha: 'alpha/good/2', gamma: 'gamma/good/1' };
  await rig.settle(rig.updater.assign(bundle(rig, 3, wanted)));
  assert.deepEqual(served(rig, [0, 1, 2]), [2, 0, 0]);
  assert.equal(rig.updater.models()[0]?.state, 'committed');
});

test('one that is taken by another rollout parts the others before the switch, and nobody after it', async () => {
  const rig = await ground();
  const taken = (epoch: number): Assignment => {
    const assignment = bundle(rig, epoch, keysOf(['good', 'good', 'good'], 1), { rolloutId: 'bundle-2' });
    const other = rig.assignment(epoch, { beta: 'beta/good/2' }, { rolloutId: 'later' });
    assignment.releases = assignment.releases.map((one) =>
      one.as === 'beta' ? (other.releases[0] ?? one) : one,
    );
    return assignment;
  };
  const assigning = rig.updater.assign(bundle(rig, 2, keysOf(['good', 'good', 'good'], 1)));
  await rig.world.run(rig.world.nowMs() + 300);
  await rig.settle(Promise.all([assigning, rig.updater.assign(taken(3))]));
  assert.deepEqual(served(rig, [0, 1, 2]), [0, 2, 0]);
  assert.deepEqual(codes(rig), ['update-parted', undefined, 'update-parted']);

  const after = await ground();
  await after.settle(after.updater.assign(bundle(after, 2, keysOf(['good', 'good', 'good'], 1))));
  const later = bundle(after, 3, keysOf(['good', 'good', 'good'], 1), { rolloutId: 'bundle-2' });
  const [own] = after.assignment(3, { beta: 'beta/slow/2' }, { rolloutId: 'later' }).releases;
  assert.ok(own);
  later.releases = later.releases.map((one) => (one.as === 'beta' ? own : one));
  await after.settle(after.updater.assign(later));
  assert.deepEqual(served(after, [0, 1, 2]), [1, 1, 1]);
});

test('one that cannot be kept alive afterwards takes the others back with it', async () => {
  const rig = await ground();
  await rig.settle(rig.updater.assign(bundle(rig, 2, keysOf(['good', 'good', 'good'], 1))));
  const { manifestSha256 } = rig.catalogue.release('beta/good/1');
  const refusal = { code: 'model-crash-loop', detail: 'again and again' } as const;
  rig.updater.troubled({ as: 'beta', manifestSha256, refusal });
  await rig.settle();
  assert.deepEqual(served(rig, [0, 1]), [0, 0, 0]);
  assert.deepEqual(codes(rig), ['update-parted', 'model-crash-loop', 'update-parted']);
});

const firsts = [false, true];
for (const [kind, isFirst] of (['good', 'bad-golden', 'fails-in-service'] as const).flatMap((one) =>
  firsts.map((first) => [one, first] as const),
))
  test(`power cuts at any moment leave all or none, where one is ${kind}${isFirst ? ' and all are new' : ''}`, async () => {
    const ends = new Set<string>();
    for (let cutMs = 10; cutMs < 9_000; cutMs += 157) {
      const rig = isFirst ? await createRig() : await ground();
      const wanted = bundle(rig, 2, keysOf(['good', kind, 'good'], 1));
      void rig.updater.assign(wanted).catch(() => undefined);
      await rig.world.run(rig.world.nowMs() + cutMs);
      await rig.reboot({ inForce: wanted });
      const now = served(rig, [0, 1]);
      assert.equal(new Set(now).size, 1, `cut after ${cutMs} ms: ${now.join()} ${states(rig).join()}`);
      ends.add(now.join());
    }
    assert.deepEqual([...ends], [kind === 'good' ? '1,1,1' : isFirst ? ',,' : '0,0,0']);
  });
