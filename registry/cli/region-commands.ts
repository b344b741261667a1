// Why: `lepton regions`: which regions there are, how the lines to them are, and how one more joins.
// Trusts: the registry it asks. Must never: leave an invitation readable for others.

import type { Command } from 'commander';
import { FleetError } from '../../shared/kernel/errors.ts';
import { invitationSchema, type RegionsStatus, regionsStatusSchema } from '../../shared/wire/regions.ts';
import { connect } from './client.ts';
import { connected, duration, type GlobalFlags } from './flags.ts';
import { print, size, table, when } from './output.ts';
import { writeSecret } from './secret-file.ts';

function linkWords({ self, link }: RegionsStatus['regions'][number]): string {
  if (self) return 'this region';
  if (link === null) return '-';
  return link.code === null ? link.state : `${link.state}: ${link.code}`;
}

function listText(status: RegionsStatus): string {
  if (status.regions.length === 0)
    return `${status.region} is alone; lepton regions add NAME --out FILE invites another registry`;
  return table(
    ['REGION', '', 'LINE', 'LAST CONTACT', 'RECEIVED', 'DOOR'],
    status.regions.map((one) => [
      one.region,
      one.home ? 'home' : '',
      linkWords(one),
      when(one.link?.lastContactMs ?? null),
      one.link === null ? '-' : size(one.link.bytesIn),
      one.url,
    ]),
  );
}

function statusText(status: RegionsStatus): string {
  const { catalogue } = status;
  const lines = [
    `region ${status.region}, home ${status.home}${status.signs ? ' (it signs the catalogue)' : ' (this region mirrors its catalogue)'}`,
    `catalogue: timestamp ${catalogue.timestampVersion}, good until ${when(catalogue.expiresAtMs)}; ${catalogue.wanted} release(s) on their way`,
    ...catalogue.refused.map(
      ({ releaseId, code, detail }) => `not taken here: ${releaseId}: ${code}: ${detail}`,
    ),
    '',
    listText(status),
  ];
  for (const { region, link } of status.regions) {
    if (link === null) continue;
    if (link.code !== null) lines.push('', `${region}: ${link.code}: ${link.detail ?? ''}`);
    if (link.streams.length > 0)
      lines.push(
        '',
        `taken from ${region}:`,
        table(
          ['LIST', 'TAKEN', 'LAST'],
          link.streams.map(({ name, taken, last }) => [name, String(taken), String(last)]),
        ),
      );
  }
  if (status.invitations.length > 0)
    lines.push(
      '',
      table(
        ['INVITED', 'USED', 'EXPIRES'],
        status.invitations.map((one) => [one.region, when(one.usedAtMs), when(one.expiresAtMs)]),
      ),
    );
  return lines.join('\n');
}

const status = (flags: GlobalFlags): Promise<RegionsStatus> =>
  connect(flags).get('/api/v1/regions', regionsStatusSchema);

async function add(region: string, flags: GlobalFlags & { out: string; ttl?: number }): Promise<void> {
  const wanted = { region, ...(flags.ttl === undefined ? {} : { ttlMs: flags.ttl }) };
  const invitation = await connect(flags).send(
    'POST',
    '/api/v1/regions/invitations',
    wanted,
    invitationSchema,
  );
  try {
    writeSecret(flags.out, invitation);
  } catch (cause) {
    throw new FleetError('disk-io', `the invitation cannot be written to ${flags.out}`, {
      cause,
      hint: 'ask for it again: the one that was lost is worth nothing then',
    });
  }
  const { home, expiresAtMs } = invitation;
  print({ json: flags.json === true }, { region, out: flags.out, home, expiresAtMs }, () =>
    [
      `${flags.out}: an invitation for region ${region}, once, until ${when(expiresAtMs)}; keep it secret`,
      `there: lepton serve --region ${region} --data DIR --home ${home.url} --invitation ${flags.out}`,
    ].join('\n'),
  );
}

export function addRegionCommands(program: Command): void {
  const regions = program.command('regions').description('regions that share this catalogue');
  connected(regions.command('list').description('regions and the lines to them')).action(
    async (flags: GlobalFlags) => {
      const answer = await status(flags);
      print({ json: flags.json === true }, answer.regions, () => listText(answer));
    },
  );
  connected(
    regions
      .command('status')
      .description('how far this region has mirrored, what it has taken of each other, who is invited'),
  ).action(async (flags: GlobalFlags) => {
    const answer = await status(flags);
    print({ json: flags.json === true }, answer, () => statusText(answer));
  });
  connected(
    regions
      .command('add')
      .description('invite a registry to join as a region (at the home region)')
      .argument('<name>', 'what the region will be called')
      .requiredOption('--out <file>', 'where the invitation is written; a secret')
      .option('--ttl <duration>', 'how long it may be used (default: 24h)', duration),
  ).action(add);
  connected(
    regions
      .command('remove')
      .description('take a region out for good (at the home region); its name is never used again')
      .argument('<name>', 'region'),
  ).action(async (region: string, flags: GlobalFlags) => {
    const answer = await connect(flags).send(
      'DELETE',
      `/api/v1/regions/${encodeURIComponent(region)}`,
      {},
      regionsStatusSchema,
    );
    print({ json: flags.json === true }, answer.regions, () => listText(answer));
  });
}
