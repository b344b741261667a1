// Why: `lepton devices` and `lepton events`: what the fleet is and what happened to it.
// Trusts: the registry's answers, validated. Must never: decide anything itself.

import type { Command } from 'commander';
import { z } from 'zod';
import { speaker } from '../../shared/host/speech.ts';
import {
  type DeviceView,
  deviceSchema,
  fleetEventSchema,
  revokedDeviceSchema,
} from '../../shared/wire/http.ts';
import { anyAnswer, connect } from './client.ts';
import { addEraseCommands } from './erasure-commands.ts';
import { connected, duration, type GlobalFlags, label, positive } from './flags.ts';
import { addMoveCommands } from './move-commands.ts';
import { print, size, table, when } from './output.ts';

function labelText(device: DeviceView): string {
  return Object.entries(device.labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

function outboxText(outbox: DeviceView['outbox']): string {
  const { producedRecords, acknowledgedRecords, droppedRecords, pendingBatches, bytes } = outbox;
  return (
    `telemetry ${producedRecords} records made, ${acknowledgedRecords} acknowledged, ${droppedRecords} dropped; ` +
    `${pendingBatches} batches (${size(bytes)}) wait` +
    (outbox.dropped ?? [])
      .map(({ class: name, reason, records }) => `\n          ${records} of ${name} dropped: ${reason}`)
      .join('')
  );
}

function trustText(device: DeviceView): string[] {
  const { trust } = device;
  const { held, clock } = trust;
  const versions =
    held === null
      ? '-'
      : `root ${held.root}, region root ${held.regionRoot}, timestamp ${held.timestamp}, snapshot ${held.snapshot}, targets ${held.targets}`;
  const offset =
    clock === null ? '-' : `${(Math.round(clock.offsetMs / 100) / 10 || 0).toFixed(1)} s (${clock.source})`;
  return [
    `trust     ${versions}; assignment ${trust.epoch}; ${trust.attacks} attacks seen`,
    `clock     ${offset} ahead of the registry   certificate of ${trust.authority} until ${when(trust.certificateExpiresAtMs)}`,
  ];
}

/** Providers are of no interest where there is only what every device has. */
function agentText({ agent }: DeviceView): string {
  const { version, arch, runtime, providers = [] } = agent;
  return `agent     ${version} on ${arch}, ${runtime}${providers.length > 1 ? `, runs models on ${providers.join(', ')}` : ''}`;
}

function moveText({ move }: DeviceView): string[] {
  if (move === undefined) return [];
  const { movedFrom, movedTo, order } = move;
  const lines = [];
  if (movedTo !== null) lines.push(`moved     it is in region ${movedTo} now`);
  else if (movedFrom !== null) lines.push(`moved     it came from region ${movedFrom}`);
  if (order !== null && order.state !== 'moved') {
    const why = order.reason === null ? '' : `   ${order.reason.code}: ${order.reason.detail}`;
    lines.push(`order     to ${order.to}, ${order.state}, until ${when(order.expiresAtMs)}${why}`);
  }
  return lines;
}

function describe(device: DeviceView): string {
  const lines = [
    `device    ${device.id}`,
    `status    ${device.status}, ${device.presence}, last seen ${when(device.lastSeenMs)}`,
    ...moveText(device),
    `region    ${device.region}   timezone ${device.timezone}   labels ${labelText(device) || '-'}`,
    agentText(device),
    ...trustText(device),
    outboxText(device.outbox),
    '',
    table(
      ['MODEL', 'STATE', 'ACTIVE', 'CANDIDATE', 'LAST GOOD', 'REASON'],
      device.models.map((model) => [
        model.name,
        model.progress && model.progress.totalBytes > 0
          ? `${model.state} ${Math.floor((100 * model.progress.doneBytes) / model.progress.totalBytes)}%`
          : model.state,
        model.active ?? '-',
        model.candidate ?? '-',
        model.lastGood ?? '-',
        model.reason ? `${model.reason.code}: ${model.reason.detail}` : '-',
      ]),
    ),
  ];
  return lines.join('\n');
}

export function addDeviceCommands(program: Command): void {
  const devices = program.command('devices').description('the fleet');
  addEraseCommands(devices);
  const path = (id: string): string => `/api/v1/devices/${encodeURIComponent(id)}`;

  connected(devices.command('list'))
    .description('devices, their presence and what they run')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get('/api/v1/devices', z.array(deviceSchema));
      print({ json: flags.json === true }, list, () =>
        table(
          ['DEVICE', 'STATUS', 'PRESENCE', 'LAST SEEN', 'LABELS', 'RUNS'],
          list.map((device) => [
            device.id,
            device.status,
            device.presence,
            when(device.lastSeenMs),
            labelText(device),
            device.models
              .map((model) => model.active ?? `${model.name}: ${speaker().word(model.state)}`)
              .join(' '),
          ]),
        ),
      );
    });

  connected(devices.command('show'))
    .description('one device: slots, states, reasons')
    .argument('<id>')
    .action(async (id: string, flags: GlobalFlags) => {
      const device = await connect(flags).get(path(id), deviceSchema);
      print({ json: flags.json === true }, device, () => describe(device));
    });

  connected(devices.command('label'))
    .description('set labels (k=v) or remove them (k=)')
    .argument('<id>')
    .argument('<labels...>', 'k=v; an empty value removes the label')
    .action(async (id: string, given: string[], flags: GlobalFlags) => {
      let pairs: Record<string, string> = {};
      for (const text of given) pairs = label(text, pairs);
      const labels = Object.fromEntries(
        Object.entries(pairs).map(([key, value]) => [key, value === '' ? null : value]),
      );
      const device = await connect(flags).send('PATCH', `${path(id)}/labels`, { labels }, deviceSchema);
      print(
        { json: flags.json === true },
        device,
        () => `${device.id}  ${labelText(device) || '(no labels)'}`,
      );
    });

  connected(devices.command('revoke'))
    .description('end a device’s connection and never let it in again')
    .argument('<id>')
    .action(async (id: string, flags: GlobalFlags) => {
      await connect(flags).send('POST', `${path(id)}/revoke`, {}, anyAnswer);
      print({ json: flags.json === true }, { id, status: 'revoked' }, () => `device ${id} is revoked`);
    });

  connected(devices.command('revoked'))
    .description('devices that are shut out, and their certificates that have not ended')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get('/api/v1/devices/revoked', z.array(revokedDeviceSchema));
      print({ json: flags.json === true }, list, () =>
        table(
          ['DEVICE', 'STATUS', 'SINCE', 'SERIAL', 'AUTHORITY', 'ENDS'],
          list.flatMap(({ id, status, sinceMs, certificates }) =>
            certificates.length === 0
              ? [[id, status, when(sinceMs), '-', '-', '-']]
              : certificates.map((one) => [
                  id,
                  status,
                  when(sinceMs),
                  one.serial,
                  one.authority,
                  when(one.expiresAtMs),
                ]),
          ),
        ),
      );
    });

  connected(devices.command('release'))
    .description('let a quarantined device back in')
    .argument('<id>')
    .action(async (id: string, flags: GlobalFlags) => {
      await connect(flags).send('POST', `${path(id)}/release`, {}, anyAnswer);
      print({ json: flags.json === true }, { id, status: 'active' }, () => `device ${id} is active again`);
    });

  addMoveCommands(devices);

  connected(program.command('events'))
    .description('what was refused, and what devices reported; newest first')
    .option('--device <id>', 'of one device or claim')
    .option('--code <code>', 'of one kind')
    .option('--attacks', 'those alone that mean that somebody tried something')
    .option('--since <duration>', 'not older than, e.g. 1h', duration)
    .option('--limit <n>', 'how many at the most', positive, 100)
    .action(
      async (
        flags: GlobalFlags & {
          device?: string;
          code?: string;
          attacks?: boolean;
          since?: number;
          limit: number;
        },
      ) => {
        const query = new URLSearchParams({ limit: String(Math.min(flags.limit, 1_000)) });
        if (flags.code !== undefined) query.set('code', flags.code);
        if (flags.attacks === true) query.set('attacks', 'true');
        if (flags.device !== undefined) query.set('subject', flags.device);
        if (flags.since !== undefined) query.set('sinceMs', String(Date.now() - flags.since));
        const list = await connect(flags).get(`/api/v1/events?${query}`, z.array(fleetEventSchema));
        print({ json: flags.json === true }, list, () =>
          table(
            ['', 'TIME', 'SOURCE', 'SUBJECT', 'CODE', 'DETAIL'],
            list.map((one) => [
              one.attack ? '!' : '',
              when(one.atMs),
              one.source,
              one.subject ?? '-',
              one.code,
              one.detail,
            ]),
          ),
        );
      },
    );
}
