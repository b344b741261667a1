// Why: `lepton groups`: names for sets of devices, which rollout files use under `selector.groups`.
// Trusts: the registry's answers, validated. Must never: send a selector that it could not read itself.

import type { Command } from 'commander';
import { z } from 'zod';
import { FleetError } from '../../shared/kernel/errors.ts';
import { deviceGroupSchema } from '../../shared/wire/groups.ts';
import { type Selector, selectorSchema } from '../../shared/wire/rollout-file.ts';
import { anyAnswer, connect } from './client.ts';
import { connected, type GlobalFlags, label } from './flags.ts';
import { print, table, when } from './output.ts';

interface PutFlags extends GlobalFlags {
  label?: Record<string, string>;
  device?: string[];
  arch?: string[];
  provider?: string[];
}

function selectorOf({ label: matchLabels = {}, device, arch, provider: providers }: PutFlags): Selector {
  const capabilities = {
    ...(arch === undefined ? {} : { arch }),
    ...(providers === undefined ? {} : { providers }),
  };
  const parsed = selectorSchema.safeParse({
    matchLabels,
    ...(device === undefined ? {} : { devices: device }),
    ...(Object.keys(capabilities).length === 0 ? {} : { capabilities }),
  });
  if (parsed.success) return parsed.data;
  throw new FleetError('input-invalid', z.prettifyError(parsed.error));
}

function inWords({ matchLabels, matchExpressions, regions, devices, capabilities }: Selector): string {
  const lines = [
    ...(regions === undefined ? [] : [`in ${regions.join(' or ')}`]),
    ...Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`),
    ...matchExpressions.map(({ key, operator, values }) =>
      [key, operator, values.join('|')].join(' ').trim(),
    ),
    ...(devices === undefined ? [] : [`${devices.length} devices by id`]),
    ...Object.entries(capabilities ?? {}).map(([what, needed]) => `${what} ${String(needed)}`),
  ];
  return lines.join(', ') || 'every device';
}

export function addGroupCommands(program: Command): void {
  const groups = program.command('groups').description('names for sets of devices, for rollout files');

  connected(groups.command('put'))
    .description('make a group, or say anew who is in it; rollouts under way see it at once')
    .argument('<name>')
    .option('--label <k=v>', 'devices with this label; may be repeated', label)
    .option('--device <ids...>', 'of these devices alone')
    .option('--arch <arch...>', 'of these processors alone, as Node names them: x64, arm64')
    .option(
      '--provider <names...>',
      'where one of these runs models, as ONNX Runtime names them: cuda, webgpu',
    )
    .action(async (name: string, flags: PutFlags) => {
      const body = { selector: selectorOf(flags) };
      const path = `/api/v1/groups/${encodeURIComponent(name)}`;
      const group = await connect(flags).send('PUT', path, body, deviceGroupSchema);
      print({ json: flags.json === true }, group, () => `group ${name}: ${inWords(group.selector)}`);
    });

  connected(groups.command('list'))
    .description('the groups, by name')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get('/api/v1/groups', z.array(deviceGroupSchema));
      print({ json: flags.json === true }, list, () =>
        table(
          ['GROUP', 'DEVICES', 'CHANGED', 'BY'],
          list.map((one) => [one.name, inWords(one.selector), when(one.changedAtMs), one.changedBy]),
        ),
      );
    });

  connected(groups.command('remove'))
    .description('forget a group; devices that have a wave of a rollout keep it')
    .argument('<name>')
    .action(async (name: string, flags: GlobalFlags) => {
      const gone = await connect(flags).send(
        'DELETE',
        `/api/v1/groups/${encodeURIComponent(name)}`,
        {},
        anyAnswer,
      );
      print({ json: flags.json === true }, gone, () => `group ${name} is gone`);
    });
}
