// Why: flags and LEPTON_* variables become the agent's options, once, with errors that name the flag.
// Trusts: the user's own command line and files. Must never: print the content of a claim or a token.

import { readFileSync } from 'node:fs';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { LogLevel } from '../../shared/kernel/ports.ts';
import { isTimeZone } from '../../shared/kernel/windows.ts';
import { type ClaimFile, claimFileSchema } from '../../shared/wire/claim.ts';
import { describeIssues, type Labels, labelsSchema } from '../../shared/wire/messages.ts';
import { type TransportMode, transportModes } from '../bus/transport.ts';

const variables = {
  state: 'LEPTON_STATE',
  claim: 'LEPTON_CLAIM',
  http: 'LEPTON_HTTP',
  token: 'LEPTON_AGENT_TOKEN',
  logLevel: 'LEPTON_LOG_LEVEL',
  serverName: 'LEPTON_SERVER_NAME',
  streamBroker: 'LEPTON_STREAM_BROKER',
  serverExtension: 'LEPTON_SERVER_EXTENSIONS',
  storageQuota: 'LEPTON_STORAGE_QUOTA',
  transport: 'LEPTON_TRANSPORT',
  outboxMax: 'LEPTON_OUTBOX_MAX',
  outboxRetention: 'LEPTON_OUTBOX_RETENTION',
  timezone: 'LEPTON_TIMEZONE',
} as const;

/** The flag's value, else the variable's; an empty one counts as absent. */
export function setting(name: keyof typeof variables, flag: string | undefined): string | undefined {
  const value = flag ?? process.env[variables[name]];
  return value === '' ? undefined : value;
}

export function required(name: 'state' | 'http', flag: string | undefined): string {
  const value = setting(name, flag);
  if (value !== undefined) return value;
  throw new FleetError('config-invalid', `--${name} is missing (or ${variables[name]})`);
}

/** `127.0.0.1:0`, `[::1]:8080`, `localhost:8080`. */
export function parseHostPort(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]/\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port > 65_535) {
    throw new FleetError('config-invalid', `--http ${JSON.stringify(text)} is not HOST:PORT`);
  }
  return { host, port };
}

const units: Record<string, number> = { '': 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** `500MiB`, `2GiB`, or bytes; null where nothing is given. */
export function parseSize(flag: string, text: string | undefined): number | null {
  if (text === undefined) return null;
  const match = /^(\d{1,15})(|KiB|MiB|GiB)$/.exec(text);
  const bytes = Number(match?.[1]) * (units[match?.[2] ?? ''] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes) || bytes === 0)
    throw new FleetError('config-invalid', `${flag} ${JSON.stringify(text)} is not a size like 500MiB`);
  return bytes;
}

const outboxBytesMin = 1024 ** 2;
const dayMs = 86_400_000;

/** What the outbox may take, and for how long; what is absent keeps its default. */
export function parseOutbox(
  maxFlag: string | undefined,
  retentionFlag: string | undefined,
): { outboxBytesMax?: number; retentionMs?: number } {
  const outboxBytesMax = parseSize('--outbox-max', setting('outboxMax', maxFlag));
  // A batch as it is after a crash must fit into a class's share.
  if (outboxBytesMax !== null && outboxBytesMax < outboxBytesMin)
    throw new FleetError('config-invalid', '--outbox-max is at least 1MiB');
  const text = setting('outboxRetention', retentionFlag);
  const days = Number(/^(\d{1,5})d$/.exec(text ?? '')?.[1]);
  if (text !== undefined && !(days >= 1))
    throw new FleetError('config-invalid', `--outbox-retention ${JSON.stringify(text)} is not days like 90d`);
  return {
    ...(outboxBytesMax === null ? {} : { outboxBytesMax }),
    ...(text === undefined ? {} : { retentionMs: days * dayMs }),
  };
}

/** An IANA name that the engine knows; undefined where none is given. */
export function parseTimezone(text: string | undefined): string | undefined {
  if (text === undefined || isTimeZone(text)) return text;
  throw new FleetError(
    'config-invalid',
    `--timezone ${JSON.stringify(text)} is not a zone like Europe/Berlin`,
  );
}

const durationUnitMs: Record<string, number> = { s: 1_000, m: 60_000, h: 3_600_000, d: dayMs };

/** `90s`, `30m`, `2h`, `1d`; milliseconds. */
export function parseDuration(flag: string, text: string): number {
  const match = /^(\d{1,6})(s|m|h|d)$/.exec(text);
  const ms = Number(match?.[1]) * (durationUnitMs[match?.[2] ?? ''] ?? Number.NaN);
  if (!(ms > 0))
    throw new FleetError('config-invalid', `${flag} ${JSON.stringify(text)} is not like 30m or 2h`);
  return ms;
}

/** `k=v`, repeated. */
export function parseLabels(pairs: readonly string[]): Labels {
  const labels: Labels = {};
  for (const pair of pairs) {
    const cut = pair.indexOf('=');
    if (cut < 1) throw new FleetError('config-invalid', `--label ${JSON.stringify(pair)} is not KEY=VALUE`);
    labels[pair.slice(0, cut)] = pair.slice(cut + 1);
  }
  const parsed = labelsSchema.safeParse(labels);
  if (!parsed.success) throw new FleetError('config-invalid', `--label: ${describeIssues(parsed.error)}`);
  return parsed.data;
}

/** What `GET /v2` shall say; keys that are absent keep the agent's own. The variable lists extensions with commas. */
export function parseServer(
  nameFlag: string | undefined,
  extensionFlags: readonly string[],
): { name?: string; extensions?: string[] } {
  const name = setting('serverName', nameFlag);
  const listed =
    extensionFlags.length > 0 ? extensionFlags : setting('serverExtension', undefined)?.split(',');
  const extensions = listed?.map((one) => one.trim()).filter((one) => one !== '');
  for (const [flag, text] of [
    ['--server-name', name ?? ''],
    ...(extensions ?? []).map((one) => ['--server-extension', one] as const),
  ] as const) {
    if (!/^[\x20-\x7e]{0,200}$/.test(text))
      throw new FleetError('config-invalid', `${flag}: at most 200 printable characters`);
  }
  return { ...(name === undefined ? {} : { name }), ...(extensions === undefined ? {} : { extensions }) };
}

export function parseTransport(text: string | undefined): TransportMode {
  const mode = transportModes.find((one) => one === (text ?? 'auto'));
  if (mode === undefined)
    throw new FleetError('config-invalid', `--transport is one of ${transportModes.join(', ')}`);
  return mode;
}

const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;

export function parseLogLevel(text: string | undefined): LogLevel | 'silent' {
  const level = logLevels.find((one) => one === (text ?? 'info'));
  if (level === undefined)
    throw new FleetError('config-invalid', `--log-level is one of ${logLevels.join(', ')}`);
  return level;
}

/** The claim, or null where the file is gone: a device that is enrolled does not need it any more. */
export function readClaim(path: string): ClaimFile | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return null;
    throw new FleetError('claim-malformed', `cannot read ${path}`, { cause });
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    throw new FleetError('claim-malformed', `${path} is not JSON`, { cause });
  }
  const parsed = claimFileSchema.safeParse(body);
  if (!parsed.success) throw new FleetError('claim-malformed', `${path}: ${describeIssues(parsed.error)}`);
  return parsed.data;
}
