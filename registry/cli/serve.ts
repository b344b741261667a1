// Why: `lepton serve`: a registry as a process, with signals and the one line that says it is ready.
// Trusts: flags that were parsed. Must never: print anything else on stdout.

import { readFileSync } from 'node:fs';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openLog } from '../../shared/host/log.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { LogLevel } from '../../shared/kernel/ports.ts';
import { namePattern } from '../../shared/kernel/releases.ts';
import { parseMemory } from '../../shared/onnx/memory-bounds.ts';
import { parseMessage } from '../../shared/wire/messages.ts';
import { type Invitation, invitationSchema } from '../../shared/wire/regions.ts';
import { durationSchema } from '../../shared/wire/rollout-file.ts';
import type { FleetLimits } from '../fleet/limits.ts';
import { type ListenAddress, type RegistryOptions, startRegistry } from '../registry.ts';

export interface ServeOptions {
  /** Data folder. */
  data: string;
  region: string;
  /** `HOST:PORT`. */
  http: string;
  mqtt: string;
  /** `mqtts://HOST:PORT` of a broker of another maker, in the place of our own. */
  broker?: string;
  /** URLs under which devices and people reach this registry, where they differ from what is bound. */
  advertiseHttp?: string;
  advertiseMqtt?: string;
  /** Files, PEM. Both or none. */
  httpCert?: string;
  httpKey?: string;
  /** `HOST:PORT`. */
  regions?: string;
  advertiseRegions?: string;
  /** File. */
  invitation?: string;
  home?: string;
  /** `REGION=URL`. */
  peer?: string[];
  /** Duration. */
  regionsEvery?: string;
  /** Mebibytes. */
  modelMemoryMax?: string;
  downloadsMax?: string;
  /** Kibibytes a second. */
  deviceRateMax?: string;
  regionRateMax?: string;
  deviceRateMin?: string;
  deltaReleases?: string;
  /** Mebibytes. */
  deltaSpace?: string;
  /** Folder on this machine. */
  backupFolder?: string;
  logLevel: LogLevel;
  version: string;
}

/** `HOST:PORT`, an IPv6 host in brackets. Fault: `config-invalid`. */
export function parseListenAddress(text: string, flag: string): ListenAddress {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3] ?? Number.NaN);
  const bracketed = match?.[1] !== undefined;
  if (match === null || port > 65_535 || (bracketed && !/^[0-9a-fA-F:.%]*:[0-9a-fA-F:.%]*$/.test(host))) {
    throw new FleetError(
      'config-invalid',
      `${flag} ${text}: expected HOST:PORT, such as 127.0.0.1:8443 or [::1]:8443`,
    );
  }
  return { host, port };
}

function advertised(text: string | undefined, flag: string, protocols: string[]): string | undefined {
  if (text === undefined) return undefined;
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !protocols.includes(url.protocol) || url.hostname === '') {
    throw new FleetError(
      'config-invalid',
      `${flag} ${text}: expected a URL with ${protocols.join(' or ')}//`,
    );
  }
  return text.replace(/\/+$/, '');
}

function readPem(path: string, flag: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new FleetError('config-invalid', `${flag} ${path} cannot be read`, { cause: error });
  }
}

function tlsFiles(options: ServeOptions): { cert: string; key: string } | undefined {
  const { httpCert, httpKey } = options;
  if (httpCert === undefined && httpKey === undefined) return undefined;
  if (httpCert === undefined || httpKey === undefined) {
    throw new FleetError('config-invalid', 'give both --http-cert and --http-key');
  }
  return { cert: readPem(httpCert, '--http-cert'), key: readPem(httpKey, '--http-key') };
}

function readInvitation(path: string): Invitation {
  let text: Uint8Array;
  try {
    text = readFileSync(path);
  } catch (cause) {
    throw new FleetError('config-invalid', `--invitation ${path} cannot be read`, { cause });
  }
  const read = parseMessage(invitationSchema, text);
  if (read.ok) return read.value;
  throw new FleetError('config-invalid', `--invitation ${path}: ${read.refusal.detail}`, {
    hint: 'lepton regions add NAME --out FILE, at the home region, makes one',
  });
}

/** What is said of other regions. Fault: `config-invalid`. */
function regionOptions(
  options: Partial<ServeOptions>,
): Pick<
  RegistryOptions,
  'regions' | 'advertiseRegions' | 'invitation' | 'homeUrl' | 'peers' | 'regionLimits'
> {
  const advertiseRegions = advertised(options.advertiseRegions, '--advertise-regions', ['https:']);
  const homeUrl = advertised(options.home, '--home', ['https:']);
  if (homeUrl !== undefined && options.invitation === undefined)
    throw new FleetError('config-invalid', '--home goes with --invitation FILE, at the first start');
  const peers = new Map<string, string>();
  for (const text of options.peer ?? []) {
    const at = text.indexOf('=');
    const url = advertised(text.slice(at + 1), `--peer ${text}:`, ['https:']);
    if (at < 1 || url === undefined || !namePattern.test(text.slice(0, at)))
      throw new FleetError('config-invalid', `--peer ${text}: expected REGION=https://HOST:PORT`);
    peers.set(text.slice(0, at), url);
  }
  const every = options.regionsEvery === undefined ? null : durationSchema.safeParse(options.regionsEvery);
  if (every !== null && (!every.success || every.data < 100))
    throw new FleetError('config-invalid', `--regions-every ${options.regionsEvery}: expected 100ms or more`);
  return {
    ...(options.regions === undefined ? {} : { regions: parseListenAddress(options.regions, '--regions') }),
    ...(advertiseRegions === undefined ? {} : { advertiseRegions }),
    ...(options.invitation === undefined ? {} : { invitation: readInvitation(options.invitation) }),
    ...(homeUrl === undefined ? {} : { homeUrl }),
    peers,
    regionLimits: every?.success === true ? { roundEveryMs: every.data } : {},
  };
}

const KiB = 1024;

/** Each flag with its limit, the limit's units in one of the flag's, and the least that makes sense. */
const deliveryFlags = [
  { flag: '--downloads-max', option: 'downloadsMax', limit: 'downloadsMax', unit: 1, least: 1 },
  {
    flag: '--device-rate-max',
    option: 'deviceRateMax',
    limit: 'deviceBytesPerSecondMax',
    unit: KiB,
    least: 1,
  },
  {
    flag: '--region-rate-max',
    option: 'regionRateMax',
    limit: 'regionBytesPerSecondMax',
    unit: KiB,
    least: 1,
  },
  {
    flag: '--device-rate-min',
    option: 'deviceRateMin',
    limit: 'downloadBytesPerSecondMin',
    unit: KiB,
    least: 0,
  },
  { flag: '--delta-releases', option: 'deltaReleases', limit: 'encodingReleasesBack', unit: 1, least: 0 },
  { flag: '--delta-space', option: 'deltaSpace', limit: 'encodingsBytesMax', unit: KiB * KiB, least: 0 },
] as const;

/** Fault: `config-invalid`. */
export function deliveryLimits(options: Partial<ServeOptions>): Partial<FleetLimits> {
  const limits: Partial<Record<keyof FleetLimits, number>> = {};
  for (const { flag, option, limit, unit, least } of deliveryFlags) {
    const text = options[option];
    if (text === undefined) continue;
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least))
      throw new FleetError('config-invalid', `${flag} ${text}: expected a whole number from ${least}`);
    limits[limit] = value * unit;
  }
  return limits;
}

/**
 * Runs a registry until SIGTERM or SIGINT, which drain it. Prints
 * `{"event":"registry.ready","http":URL,"mqtt":URL}` on stdout when it is ready.
 */
export async function runServe(options: ServeOptions): Promise<void> {
  if (!namePattern.test(options.region)) {
    throw new FleetError('config-invalid', `--region ${options.region}: expected a name of a-z, 0-9 and -`);
  }
  const httpTls = tlsFiles(options);
  const advertiseHttp = advertised(options.advertiseHttp, '--advertise-http', ['http:', 'https:']);
  const advertiseMqtt = advertised(options.advertiseMqtt, '--advertise-mqtt', ['mqtts:']);
  const broker = advertised(options.broker, '--broker', ['mqtts:']);
  const { modelMemoryMax } = options;
  const modelMemoryBytesMax =
    modelMemoryMax === undefined ? undefined : parseMemory(modelMemoryMax, '--model-memory-max');
  const limits = deliveryLimits(options);
  const regions = regionOptions(options);
  const log = openLog({ level: options.logLevel });

  // Heard from the first moment: a signal during the start ends it as soon as it can be undone.
  let stopping = false;
  let wake: () => void = () => undefined;
  const asked = new Promise<void>((resolve) => {
    wake = resolve;
  });
  const onSignal = (): void => {
    // A second signal does not wait for what the first one drains.
    if (stopping) process.exit(1);
    stopping = true;
    wake();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  try {
    const registry = await startRegistry({
      dataFolder: options.data,
      region: options.region,
      http: parseListenAddress(options.http, '--http'),
      mqtt: parseListenAddress(options.mqtt, '--mqtt'),
      ...(advertiseHttp === undefined ? {} : { advertiseHttp }),
      ...(advertiseMqtt === undefined ? {} : { advertiseMqtt }),
      ...(broker === undefined ? {} : { broker }),
      ...(options.backupFolder === undefined ? {} : { backupFolder: options.backupFolder }),
      ...(httpTls === undefined ? {} : { httpTls }),
      ...(modelMemoryBytesMax === undefined ? {} : { modelMemoryBytesMax }),
      ...regions,
      limits,
      version: options.version,
      clock: systemClock,
      entropy: systemEntropy,
      log,
    });
    if (!stopping) {
      const line = { event: 'registry.ready', http: registry.httpUrl, mqtt: registry.mqttUrl };
      process.stdout.write(`${JSON.stringify(line)}\n`);
    }
    await asked;
    await registry.stop();
  } finally {
    process.off('SIGTERM', onSignal);
    process.off('SIGINT', onSignal);
  }
}
