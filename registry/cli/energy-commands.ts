// Why: `lepton energy`: what the answers of a model's releases cost. Trusts: the registry's answers, validated.
// Must never: show a number without how it was found.

import type { Command } from 'commander';
import { type EnergyView, energySchema } from '../../shared/wire/energy.ts';
import { connect } from './client.ts';
import { modelRelease } from './evidence-commands.ts';
import { connected, duration, type GlobalFlags, modelId } from './flags.ts';
import { print, table } from './output.ts';

interface EnergyFlags extends GlobalFlags {
  release?: string;
  since: number;
}

function energyText({ releases, hint }: EnergyView): string {
  const number = (value: number | null): string => (value === null ? '-' : value.toPrecision(4));
  const rows = releases.flatMap(({ release, methods }) =>
    methods.map((one) => [
      release,
      one.method === 'none' ? one.source : `${one.source} (${one.method})`,
      String(one.devices),
      String(one.requests),
      number(one.joules),
      number(one.joulesPer1000),
      number(one.cpuMsPer1000),
    ]),
  );
  return [
    table(['RELEASE', 'SOURCE', 'DEVICES', 'ANSWERS', 'JOULES', 'J/1000', 'CPU MS/1000'], rows),
    ...(hint === null ? [] : [hint]),
  ].join('\n');
}

async function energy(model: { namespace: string; name: string }, flags: EnergyFlags): Promise<void> {
  const name = `${model.namespace}/${model.name}`;
  const query = new URLSearchParams({ since: String(Math.max(0, Date.now() - flags.since)) });
  if (flags.release !== undefined) query.set('release', modelRelease(name, flags.release));
  const view = await connect(flags).get(`/api/v1/models/${name}/energy?${query}`, energySchema);
  print({ json: flags.json === true }, view, () => energyText(view));
}

export function addEnergyCommand(program: Command): void {
  connected(program.command('energy'))
    .description('joules for 1,000 answers of the releases of a model: measured, modelled or unknown')
    .argument('<ns/name>', 'the model', modelId)
    .option('--release <version>', 'of this release; of all that answered where absent')
    .option('--since <duration>', 'how far back', duration, 7 * 24 * 3_600_000)
    .action(energy);
}
