// Why: `lepton webhooks`: programs of others that are told of events.
// Trusts: the registry's answers, validated. Must never: show a secret again.

import type { Command } from 'commander';
import { z } from 'zod';
import { webhookCreatedSchema, webhookSchema } from '../../shared/wire/webhooks.ts';
import { connect } from './client.ts';
import { collect, connected, type GlobalFlags } from './flags.ts';
import { print, table, when } from './output.ts';

const path = '/api/v1/webhooks';

export function addWebhookCommands(program: Command): void {
  const webhooks = program.command('webhooks').description('programs that are told of events');

  connected(webhooks.command('add'))
    .description('post events to an address from now on, signed as Standard Webhooks has it')
    .argument('<url>', 'https://…, or http://… on the registry’s own machine')
    .option('--code <beginning>', 'only events whose code begins so, e.g. rollout- (repeatable)', collect)
    .action(async (url: string, flags: GlobalFlags & { code?: string[] }) => {
      const wanted = { url, codes: flags.code ?? [] };
      const made = await connect(flags).send('POST', path, wanted, webhookCreatedSchema);
      print({ json: flags.json === true }, made, () =>
        [made.secret, `webhook ${made.id} to ${made.url}; its secret is not shown again`].join('\n'),
      );
    });

  connected(webhooks.command('list'))
    .description('webhooks and how their deliveries go')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get(path, z.array(webhookSchema));
      print({ json: flags.json === true }, list, () =>
        table(
          ['ID', 'URL', 'CODES', 'DELIVERED', 'FAILURES', 'WHY'],
          list.map((one) => [
            one.id,
            one.url,
            one.codes.map((code) => `${code}*`).join(' ') || 'all',
            when(one.deliveredAtMs),
            one.failures === 0 ? '0' : `${one.failures}, next ${when(one.nextAtMs)}`,
            one.lastError ?? '-',
          ]),
        ),
      );
    });

  connected(webhooks.command('remove'))
    .description('post no more to it')
    .argument('<id>', 'as webhooks list shows it')
    .action(async (id: string, flags: GlobalFlags) => {
      const gone = await connect(flags).send(
        'DELETE',
        `${path}/${encodeURIComponent(id)}`,
        {},
        webhookSchema,
      );
      print({ json: flags.json === true }, gone, () => `webhook ${gone.id} to ${gone.url} is removed`);
    });
}
