// Why: what publishers do beside pushing: raise a floor, take a release back, renew, add the second signature.
// Trusts: publisher-steps.ts for what is signed. Must never: sign a waiting step that does more than was asked.

import { type Command, InvalidArgumentError } from 'commander';
import { FleetError } from '../../shared/kernel/errors.ts';
import {
  formatReleaseId,
  type ReleaseName,
  targetPath,
  versionPattern,
} from '../../shared/kernel/releases.ts';
import { addSignature } from '../../shared/trust/tuf/repository.ts';
import { type ReleasePushed, releasePushedSchema } from '../../shared/wire/http.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags, modelId, releaseId } from './flags.ts';
import { print, when } from './output.ts';
import {
  type DoneStep,
  namedKey,
  type PublisherGround,
  reviewWaiting,
  type StepChange,
  signWaiting,
  takeStep,
  tellReplaced,
  tellStep,
} from './publisher-steps.ts';

interface KeyFlags extends GlobalFlags {
  key?: string;
}

const keyOption = [
  '--key <file>',
  'publisher’s private key (default: one a namespace in the config folder)',
] as const;

function counter(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new InvalidArgumentError('Expected a release counter: a whole number from 0 up.');
  return value;
}

function version(text: string): string {
  if (!versionPattern.test(text)) throw new InvalidArgumentError('Expected a version, e.g. 1.2.0.');
  return text;
}

export function pushedText(pushed: ReleasePushed): string {
  return pushed.status === 'accepted'
    ? `${pushed.releaseId} is in the catalogue, counter ${pushed.counter}, manifest ${pushed.digest}`
    : `${pushed.releaseId} has ${pushed.signatures} of ${pushed.threshold} signatures; next: another key holder runs lepton models sign ${pushed.releaseId}`;
}

function doneText(done: DoneStep): string {
  if (done.status === 'unchanged') return done.does.join('\n');
  const { namespace, signatures, threshold, stepId } = done;
  if (done.status === 'accepted')
    return [
      `${namespace} is at version ${done.version}, valid until ${when(done.expiresAtMs)}`,
      ...done.does,
    ].join('\n  ');
  return [
    [
      `version ${done.version} of ${namespace} has ${signatures} of ${threshold} signatures`,
      ...done.does,
    ].join('\n  '),
    `next: another key holder runs lepton publishers sign ${namespace} --step ${stepId}`,
  ].join('\n');
}

function counterOf(ground: PublisherGround, release: ReleaseName): number {
  const found = ground.current?.targets.get(targetPath(release))?.counter;
  if (found === undefined || found === null)
    throw new FleetError('release-unknown', `${formatReleaseId(release)} is not in the verified catalogue`);
  return found;
}

/** Which floor to sign; in words where it is that already. */
function floorChange(
  ground: PublisherGround,
  model: { namespace: string; name: string },
  wanted: number,
): StepChange | string {
  const name = `${model.namespace}/${model.name}`;
  const prefix = `${name}/`;
  const counters = [...(ground.current?.targets ?? [])]
    .filter(([path]) => path.startsWith(prefix))
    .map(([, entry]) => entry.counter ?? 0);
  if (counters.length === 0) throw new FleetError('not-found', `there is no model ${name}`);
  const present = ground.current?.floors.get(model.name) ?? 0;
  if (wanted === present) return `the floor of ${name} is ${present} already`;
  if (wanted < present) {
    throw new FleetError('metadata-rollback', `the floor of ${name} is ${present} and never falls`, {
      hint: 'push the release again under a higher version',
    });
  }
  const highest = Math.max(...counters);
  // A slip of the finger cannot be taken back: one above the newest release bars all there are.
  if (wanted > highest + 1) {
    throw new FleetError('input-invalid', `the newest release of ${name} has counter ${highest}`, {
      hint: `give --counter ${highest + 1} at most, which bars every release there is`,
    });
  }
  return { floors: new Map([[model.name, wanted]]) };
}

function addFloor(models: Command): void {
  connected(models.command('floor'))
    .description('sign that no release below this one may be assigned any more; it cannot be taken back')
    .argument('<model>', 'NS/NAME', modelId)
    .option('--release <version>', 'the lowest release that may be assigned', version)
    .option('--counter <n>', 'the lowest release counter instead', counter)
    .option(...keyOption)
    .action(
      async (
        model: { namespace: string; name: string },
        flags: KeyFlags & { release?: string; counter?: number },
      ) => {
        const { release: lowest, counter: number } = flags;
        if ((lowest === undefined) === (number === undefined))
          throw new FleetError('config-invalid', 'give exactly one of --release and --counter');
        const done = await takeStep(connect(flags), model.namespace, flags.key, (ground) => {
          const wanted = lowest === undefined ? number : counterOf(ground, { ...model, version: lowest });
          return floorChange(ground, model, wanted ?? 0);
        });
        print({ json: flags.json === true }, done, () => doneText(done));
      },
    );
}

function addWithdraw(models: Command): void {
  connected(models.command('withdraw'))
    .description('take one release back: no device installs it any more; it cannot be undone')
    .argument('<release>', 'NS/NAME@VERSION', releaseId)
    .option(...keyOption)
    .action(async (release: ReleaseName, flags: KeyFlags) => {
      const done = await takeStep(connect(flags), release.namespace, flags.key, (ground) => {
        const taken = counterOf(ground, release);
        if (ground.current?.withdrawn.get(release.name)?.has(taken) === true)
          return `${formatReleaseId(release)} is withdrawn already`;
        return { withdrawn: new Map([[release.name, new Set([taken])]]) };
      });
      print({ json: flags.json === true }, done, () => doneText(done));
    });
}

function addSign(models: Command): void {
  connected(models.command('sign'))
    .description('add a second signature to a release that waits for it')
    .argument('<release>', 'NS/NAME@VERSION', releaseId)
    .option('--key <file>', 'publisher’s private key')
    .action(async (release: ReleaseName, flags: KeyFlags) => {
      const client = connect(flags);
      const { namespace } = release;
      const wanted = formatReleaseId(release);
      const review = await reviewWaiting(client, namespace);
      tellStep(namespace, review);
      // One signs what one was asked to sign: this release and nothing beside it.
      const [only] = review.step.added;
      const adds = only !== undefined && formatReleaseId(only.release) === wanted;
      if (!adds || review.does.length !== 1 || review.pending.manifest === null) {
        const code = adds ? 'input-invalid' : 'release-unknown';
        throw new FleetError(
          code,
          `what waits in ${namespace} is not just ${wanted}: ${review.does.join('; ')}`,
          {
            hint: adds
              ? 'nothing was signed; ask who made it'
              : `nothing was signed; to look at what waits: lepton publishers pending ${namespace}`,
          },
        );
      }
      const key = namedKey(review.publisher, flags.key);
      const pushed = await client.send(
        'POST',
        '/api/v1/releases',
        {
          releaseId: wanted,
          metadata: Buffer.from(addSignature(review.step.next.bytes, key.signer)).toString('base64'),
          manifest: review.pending.manifest,
        },
        releasePushedSchema,
      );
      tellReplaced(namespace, pushed.replaced);
      print({ json: flags.json === true }, pushed, () => pushedText(pushed));
    });
}

export function addModelStepCommands(models: Command): void {
  addSign(models);
  addFloor(models);
  addWithdraw(models);
}

export function addPublisherStepCommands(publishers: Command): void {
  connected(publishers.command('renew'))
    .description('sign the same content for another year; devices install nothing of expired metadata')
    .argument('<namespace>')
    .option(...keyOption)
    .action(async (namespace: string, flags: KeyFlags) => {
      const done = await takeStep(connect(flags), namespace, flags.key, (ground) => {
        if (ground.current !== null) return {};
        throw new FleetError('metadata-missing', `${namespace} has published nothing that could be renewed`, {
          hint: 'push a release first: lepton models push',
        });
      });
      print({ json: flags.json === true }, done, () => doneText(done));
    });

  connected(publishers.command('pending'))
    .description('what waits for a second signature in a namespace, in words')
    .argument('<namespace>')
    .action(async (namespace: string, flags: GlobalFlags) => {
      const { pending, step, stepId, does } = await reviewWaiting(connect(flags), namespace);
      const { releaseId: adds, signatures, threshold, pushedBy, updatedAtMs } = pending;
      const { version: next, expiresAtMs } = step;
      const shown = {
        namespace,
        version: next,
        stepId,
        does,
        releaseId: adds,
        expiresAtMs,
        ...{ signatures, threshold, pushedBy, updatedAtMs },
      };
      print({ json: flags.json === true }, shown, () =>
        [
          `version ${next} of ${namespace}, valid until ${when(expiresAtMs)}: ${signatures} of ${threshold} signatures, sent by ${pushedBy} at ${when(updatedAtMs)}`,
          ...does.map((line) => `  ${line}`),
          adds === null
            ? `next: another key holder runs lepton publishers sign ${namespace} --step ${stepId}`
            : `next: another key holder runs lepton models sign ${adds}`,
        ].join('\n'),
      );
    });

  connected(publishers.command('sign'))
    .description('add a signature to the step that waits in a namespace; without --step only shows it')
    .argument('<namespace>')
    .option('--step <id>', 'exactly this step, as the publisher who made it or `publishers pending` names it')
    .option(...keyOption)
    .action(async (namespace: string, flags: KeyFlags & { step?: string }) => {
      const client = connect(flags);
      const review = await reviewWaiting(client, namespace);
      tellStep(namespace, review);
      const [added] = review.step.added;
      if (added !== undefined) {
        throw new FleetError('input-invalid', 'what waits adds a release; nothing was signed', {
          hint: `a release is signed by its name: lepton models sign ${formatReleaseId(added.release)}`,
        });
      }
      if (flags.step === undefined) {
        throw new FleetError('input-invalid', 'nothing was signed: this is what waits', {
          hint: `to sign exactly that: lepton publishers sign ${namespace} --step ${review.stepId}`,
        });
      }
      if (flags.step !== review.stepId) {
        throw new FleetError(
          'conflict',
          `step ${review.stepId} waits, not ${flags.step}; nothing was signed`,
          {
            hint: 'another step took its place; read what it does and ask who made it',
          },
        );
      }
      const done = await signWaiting(client, namespace, review, flags.key);
      print({ json: flags.json === true }, done, () => doneText(done));
    });
}
