// Why: the daemon as a process: signals, one line on stdout when ready, logs on stderr.
// Trusts: its flags. Must never: print anything else on stdout, nor exit without saying why.

import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { parseLocalBroker } from '../../shared/host/local-broker.ts';
import { openLog } from '../../shared/host/log.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import { type RunningAgent, startAgent } from '../daemon.ts';
import {
  parseHostPort,
  parseLabels,
  parseLogLevel,
  parseOutbox,
  parseServer,
  parseSize,
  parseTimezone,
  parseTransport,
  readClaim,
  required,
  setting,
} from './settings.ts';

export interface RunFlags {
  claim?: string;
  state?: string;
  http?: string;
  label: string[];
  reEnroll?: boolean;
  token?: string;
  logLevel?: string;
  serverName?: string;
  streamBroker?: string;
  serverExtension: string[];
  storageQuota?: string;
  transport?: string;
  outboxMax?: string;
  outboxRetention?: string;
  timezone?: string;
}

/** Longest a stop may take before the process ends anyway; the journal resumes what was cut. */
const stopMs = 15_000;

/** Runs until SIGTERM or SIGINT; resolves when everything was stopped. */
export async function run(flags: RunFlags, version: string): Promise<void> {
  const stateFolder = required('state', flags.state);
  const http = parseHostPort(required('http', flags.http));
  const labels = parseLabels(flags.label);
  const log = openLog({ level: parseLogLevel(setting('logLevel', flags.logLevel)) });
  const claimPath = setting('claim', flags.claim);
  const claim = claimPath === undefined ? null : readClaim(claimPath);
  const token = setting('token', flags.token);
  const streamBroker = setting('streamBroker', flags.streamBroker);
  if (streamBroker !== undefined) parseLocalBroker(streamBroker);
  const storageQuotaBytes = parseSize('--storage-quota', setting('storageQuota', flags.storageQuota));
  const transport = parseTransport(setting('transport', flags.transport));
  const timezone = parseTimezone(setting('timezone', flags.timezone));
  const server = parseServer(flags.serverName, flags.serverExtension);

  const stopping = new AbortController();
  let signals = 0;
  const onSignal = (): void => {
    signals += 1;
    // Asked twice, it goes at once; that is safe at any point.
    if (signals > 1) process.exit(1);
    stopping.abort();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);

  log.emit('info', 'agent.starting', { version, pid: process.pid, state: stateFolder });
  let agent: RunningAgent;
  try {
    agent = await startAgent({
      stateFolder,
      http,
      labels,
      server,
      reEnroll: flags.reEnroll === true,
      ...(claim === null ? {} : { claim }),
      ...(token === undefined ? {} : { token }),
      ...(streamBroker === undefined ? {} : { streamBroker }),
      transport,
      ...(timezone === undefined ? {} : { timezone }),
      outbox: parseOutbox(flags.outboxMax, flags.outboxRetention),
      ...(storageQuotaBytes === null ? {} : { storageQuotaBytes }),
      clock: systemClock,
      entropy: systemEntropy,
      log,
      version,
      signal: stopping.signal,
    });
  } catch (error) {
    const fault = asFleetError(error);
    if (fault.code === 'enrolment-required' && claimPath !== undefined && claim === null) {
      throw new FleetError('claim-malformed', `there is no claim file ${claimPath}`, { cause: error });
    }
    throw fault;
  }
  process.stdout.write(
    `${JSON.stringify({ event: 'agent.ready', device: agent.deviceId, http: agent.httpUrl })}\n`,
  );
  if (!stopping.signal.aborted) {
    await new Promise<void>((resolve) =>
      stopping.signal.addEventListener('abort', () => resolve(), { once: true }),
    );
  }
  const giveUp = systemClock.timer(stopMs);
  void giveUp.done.then(() => process.exit(1));
  await agent.stop();
  giveUp.cancel();
}
