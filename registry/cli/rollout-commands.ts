// Why: `lepton rollout`: start one from a file, look at it, watch it to its end.
// Trusts: the registry's answers, validated. Must never: send a file that it could not read itself.

import { type Command, InvalidArgumentError } from 'commander';
import { z } from 'zod';
import { speaker } from '../../shared/host/speech.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import {
  type RegionRolloutStatus,
  regionRolloutExplanationSchema,
  regionRolloutStatusSchema,
} from '../../shared/wire/region-rollouts.ts';
import {
  type RolloutExplanation,
  type RolloutStatus,
  rolloutExplanationSchema,
  rolloutHistorySchema,
  rolloutStartedSchema,
  rolloutStatusSchema,
  rolloutSummarySchema,
} from '../../shared/wire/rollouts.ts';
import { anyAnswer, connect, type RegistryClient } from './client.ts';
import { connected, type GlobalFlags } from './flags.ts';
import { asTyped, print, spoken, table, when, withWord } from './output.ts';
import { isSettled, regionExplanationText, regionRolloutText } from './region-rollout-text.ts';
import { readRolloutFile } from './rollout-file.ts';
import { addRolloutPlan } from './rollout-plan.ts';

/** States after which nothing more happens by itself. */
const ended: ReadonlySet<string> = new Set(['succeeded', 'failed', 'aborted']);
const watchEveryMs = 500;
const unreachableFor = 120;

const shownMax = 20;
/** What says least stands last, where not all of them are shown. */
const dull: ReadonlySet<string> = new Set(['committed', 'pending']);

function deviceLines({ devices, id }: RolloutStatus): string[] {
  if (devices.length === 0) return [];
  const sorted = [
    ...devices.filter((one) => one.reason !== null || !dull.has(one.state)),
    ...devices.filter((one) => one.reason === null && dull.has(one.state)),
  ];
  const shown = devices.length <= shownMax ? devices : sorted.slice(0, shownMax);
  const rest = devices.length - shown.length;
  return [
    '',
    table(
      ['DEVICE', 'WAVE', 'STATE', 'RUNS', 'REASON'],
      shown.map((one) => [one.id, `${one.wave}`, one.state, one.release ?? '-', one.reason ?? '-']),
    ),
    ...(rest === 0 ? [] : [`… and ${rest} more: lepton rollout status ${id} --json`]),
  ];
}

/** Of one region, or across several. */
type AnyStatus = RolloutStatus | RegionRolloutStatus;
const anyStatusSchema = z.union([regionRolloutStatusSchema, rolloutStatusSchema]);

const text = (status: AnyStatus): string =>
  'regions' in status ? regionRolloutText(status) : rolloutText(status);

const isOver = (status: AnyStatus): boolean =>
  'regions' in status ? isSettled(status) : ended.has(status.state);

function rolloutText(status: RolloutStatus): string {
  const waves = status.waves.map((wave) => {
    const states = Object.entries(wave.devices)
      .filter(([state, count]) => state !== 'total' && count > 0)
      .map(([state, count]) => `${count} ${state}`)
      .join(', ');
    return [`${wave.index}`, wave.state, `${wave.devices['total'] ?? 0}`, states || '-', wave.reason ?? '-'];
  });
  const lines = [
    `rollout ${status.id} (${status.name}): ${status.releases?.join(withWord()) ?? status.release} is ${status.state}${status.reason ? `: ${status.reason}` : ''}`,
    table(['WAVE', 'STATE', 'DEVICES', 'NOW', 'REASON'], waves),
  ];
  if (status.gates.length > 0) {
    lines.push(
      '',
      table(
        ['GATE', 'WAVE', 'LIMIT', 'VALUE', 'DEVICES', 'VERDICT'],
        status.gates.map((gate) => [
          gate.gate,
          `${gate.wave}`,
          `${gate.limit}`,
          gate.value === null ? '-' : `${Number(gate.value.toPrecision(4))}`,
          `${gate.devices}`,
          gate.verdict,
        ]),
      ),
    );
  }
  if (status.approvals.length > 0) {
    lines.push(
      '',
      table(
        ['APPROVED', 'BY', 'TIME', 'UNTIL', 'COMMENT'],
        status.approvals.map((one) => [
          `wave ${one.wave}`,
          one.by,
          when(one.atMs),
          when(one.expiresAtMs),
          asTyped(one.comment ?? '-'),
        ]),
      ),
    );
  }
  lines.push(...deviceLines(status));
  return lines.join('\n');
}

function readStatus(client: RegistryClient, id: string): Promise<AnyStatus> {
  return client.get(`/api/v1/rollouts/${encodeURIComponent(id)}`, anyStatusSchema);
}

/** What changes by itself while nothing happens: when each region was last heard from. */
const shownOf = (status: AnyStatus): string =>
  JSON.stringify(status, (key, value) => (key === 'lastHeardMs' ? undefined : value));

/** Shows every change until the rollout ends. A registry that restarts meanwhile is waited for. */
async function watch(client: RegistryClient, id: string, json: boolean): Promise<AnyStatus> {
  let shown = '';
  let failures = 0;
  for (;;) {
    let status: AnyStatus | undefined;
    try {
      status = await readStatus(client, id);
      failures = 0;
    } catch (error) {
      failures += 1;
      const passing =
        error instanceof FleetError &&
        (error.code === 'registry-unreachable' || error.code === 'registry-not-ready');
      if (!passing || failures > unreachableFor) throw error;
    }
    if (status !== undefined) {
      const now = shownOf(status);
      if (now !== shown) {
        if (json) process.stdout.write(`${JSON.stringify(status)}\n`);
        else if (process.stdout.isTTY) process.stdout.write(`\u001b[2J\u001b[H${spoken(text(status))}\n`);
        else process.stdout.write(`${spoken(text(status))}\n\n`);
        shown = now;
      }
      if (isOver(status)) return status;
    }
    await new Promise((resolve) => setTimeout(resolve, watchEveryMs));
  }
}

function explanationText(said: RolloutExplanation): string {
  const { id, name, release, state, because, waves, devices } = said;
  return [
    `rollout ${id} (${name}): ${release} is ${state}${because === null ? '' : `: ${because}`}`,
    table(
      ['WAVE', 'STATE', 'BECAUSE', 'WAITS FOR'],
      waves.map((one) => [`${one.index}`, one.state, one.because ?? '-', one.waitsFor.join(', ') || '-']),
    ),
    '',
    table(
      ['DEVICE', 'WAVE', 'STATE', 'RUNS', 'BECAUSE', 'WAITS FOR', 'UNTIL'],
      devices.map((one) => [
        one.online ? one.id : speaker().say(`${one.id} (offline)`),
        one.wave === null ? '-' : `${one.wave}`,
        one.state,
        one.runs ?? '-',
        one.because ?? '-',
        one.waitsFor ?? '-',
        one.untilMs === null ? '-' : when(one.untilMs),
      ]),
    ),
  ].join('\n');
}

function waveIndex(value: string): number {
  const index = Number(value);
  if (!/^\d{1,4}$/.test(value))
    throw new InvalidArgumentError('Expected the index of a wave; the first is 0.');
  return index;
}

async function tell(id: string, verb: string, body: object, flags: GlobalFlags): Promise<void> {
  const path = `/api/v1/rollouts/${encodeURIComponent(id)}/${verb}`;
  const status = await connect(flags).send('POST', path, body, anyStatusSchema);
  print({ json: flags.json === true }, status, () => text(status));
}

export function addRolloutCommands(program: Command): void {
  const rollout = program.command('rollout').description('bring a release to devices');

  addRolloutPlan(rollout);

  connected(rollout.command('start'))
    .description('start a rollout from a file')
    .requiredOption('-f, --file <file>', 'rollout file (YAML or JSON), - for standard input')
    .option('--watch', 'stay and show its progress; exit 0 when it succeeded')
    .action(async (flags: GlobalFlags & { file: string; watch?: boolean }) => {
      const { text: content } = readRolloutFile(flags.file);
      const client = connect(flags);
      const started = await client.send('POST', '/api/v1/rollouts', { file: content }, rolloutStartedSchema);
      if (flags.watch !== true) {
        print({ json: flags.json === true }, started, () =>
          [`rollout ${started.id} started`, `next: lepton rollout watch ${started.id}`].join('\n'),
        );
        return;
      }
      if (flags.json === true) process.stdout.write(`${JSON.stringify(started)}\n`);
      const status = await watch(client, started.id, flags.json === true);
      if (status.state !== 'succeeded') process.exitCode = 1;
    });

  connected(rollout.command('list'))
    .description('rollouts, newest first')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get('/api/v1/rollouts', z.array(rolloutSummarySchema));
      print({ json: flags.json === true }, list, () =>
        table(
          ['ID', 'NAME', 'RELEASE', 'STARTED', 'STATE', 'REASON'],
          list.map((one) => [
            one.id,
            one.name,
            one.release,
            when(one.createdAtMs),
            one.state,
            one.reason ?? '-',
          ]),
        ),
      );
    });

  connected(rollout.command('status'))
    .description('waves, gates and every device’s state and reason')
    .argument('<id>')
    .action(async (id: string, flags: GlobalFlags) => {
      const status = await readStatus(connect(flags), id);
      print({ json: flags.json === true }, status, () => text(status));
    });

  connected(rollout.command('watch'))
    .description('show progress until the rollout ends; exit 0 when it succeeded, 1 when it did not')
    .argument('<id>')
    .action(async (id: string, flags: GlobalFlags) => {
      const status = await watch(connect(flags), id, flags.json === true);
      if (status.state !== 'succeeded') process.exitCode = 1;
    });

  connected(rollout.command('abort'))
    .description('stop a rollout; devices keep what they have, or with --revert go back to what they had')
    .argument('<id>')
    .option('--revert', 'go back to what each device ran before')
    .action(async (id: string, flags: GlobalFlags & { revert?: boolean }) => {
      const client = connect(flags);
      const body = flags.revert === undefined ? {} : { revert: flags.revert };
      await client.send('POST', `/api/v1/rollouts/${encodeURIComponent(id)}/abort`, body, anyAnswer);
      const status = await readStatus(client, id);
      print({ json: flags.json === true }, status, () => text(status));
    });

  connected(rollout.command('pause'))
    .description('assign nothing more; what is assigned goes on')
    .argument('<id>')
    .option('--comment <text>', 'why')
    .action(async (id: string, flags: GlobalFlags & { comment?: string }) =>
      tell(id, 'pause', flags.comment === undefined ? {} : { comment: flags.comment }, flags),
    );

  connected(rollout.command('resume'))
    .description('go on where it was paused; across regions, those that failed try again')
    .argument('<id>')
    .option('--comment <text>', 'why')
    .option('--without <regions...>', 'across regions: go on without these; their part ends')
    .action(async (id: string, flags: GlobalFlags & { comment?: string; without?: string[] }) => {
      const { comment, without } = flags;
      const body = {
        ...(comment === undefined ? {} : { comment }),
        ...(without === undefined ? {} : { without }),
      };
      await tell(id, 'resume', body, flags);
    });

  connected(rollout.command('approve'))
    .description('say that a wave may begin; who started the rollout cannot')
    .argument('<id>')
    .option('--wave <index>', 'this one; the next that waits where absent', waveIndex)
    .option('--comment <text>', 'why')
    .action(async (id: string, flags: GlobalFlags & { wave?: number; comment?: string }) => {
      const { wave, comment } = flags;
      const body = {
        ...(wave === undefined ? {} : { wave }),
        ...(comment === undefined ? {} : { comment }),
      };
      await tell(id, 'approve', body, flags);
    });

  connected(rollout.command('retry'))
    .description('try again where a rollout that has ended failed: a rollout of its own, with the same file')
    .argument('<id>')
    .argument('[devices...]', 'these alone')
    .action(async (id: string, devices: string[], flags: GlobalFlags) => {
      const path = `/api/v1/rollouts/${encodeURIComponent(id)}/retry`;
      const body = devices.length === 0 ? {} : { devices };
      const started = await connect(flags).send('POST', path, body, rolloutStartedSchema);
      print({ json: flags.json === true }, started, () =>
        [`rollout ${started.id} started`, `next: lepton rollout watch ${started.id}`].join('\n'),
      );
    });

  connected(rollout.command('explain'))
    .description('why a rollout, its waves and devices are where they are, and what each waits for')
    .argument('<id>')
    .argument('[device]', 'this one alone')
    .action(async (id: string, device: string | undefined, flags: GlobalFlags) => {
      const query = device === undefined ? '' : `?device=${encodeURIComponent(device)}`;
      const path = `/api/v1/rollouts/${encodeURIComponent(id)}/explanation${query}`;
      const schema = z.union([regionRolloutExplanationSchema, rolloutExplanationSchema]);
      const said = await connect(flags).get(path, schema);
      print({ json: flags.json === true }, said, () =>
        'regions' in said ? regionExplanationText(said) : explanationText(said),
      );
    });

  connected(rollout.command('history'))
    .description('what became of a rollout and its waves, when, by whose word and why')
    .argument('<id>')
    .action(async (id: string, flags: GlobalFlags) => {
      const path = `/api/v1/rollouts/${encodeURIComponent(id)}/history`;
      const history = await connect(flags).get(path, rolloutHistorySchema);
      print({ json: flags.json === true }, history, () =>
        table(
          ['WHEN', 'WHAT', 'BECAME', 'BY', 'REASON'],
          history.map((one) => [
            when(one.atMs),
            one.wave === null ? 'rollout' : `wave ${one.wave}`,
            one.what,
            one.by ?? '-',
            // Of an approval it is what the person typed.
            one.what === 'approved' ? asTyped(one.reason ?? '-') : (one.reason ?? '-'),
          ]),
        ),
      );
    });

  connected(rollout.command('check'))
    .description('check a rollout file without sending it')
    .requiredOption('-f, --file <file>', 'rollout file (YAML or JSON)')
    .action((flags: GlobalFlags & { file: string }) => {
      const { file } = readRolloutFile(flags.file);
      print({ json: flags.json === true }, file, () => `${flags.file} is a valid rollout file`);
    });
}
