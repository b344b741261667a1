// Why: the flags of `lepton serve`. The work is in serve.ts.
// Trusts: nothing that was typed. Must never: load the registry for any other command.

import { type Command, Option } from 'commander';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { LogLevel } from '../../shared/kernel/ports.ts';
import { collect } from './flags.ts';
import type { ServeOptions } from './serve.ts';
import { setting } from './settings.ts';
import { programVersion } from './version.ts';

const levels = ['debug', 'info', 'warn', 'error'] as const satisfies readonly LogLevel[];

/** As they are typed. */
type ServeFlags = Omit<ServeOptions, 'logLevel' | 'version'> & { logLevel?: string };

export function addServeCommand(program: Command): void {
  program
    .command('serve')
    .description('run a region’s registry: web API, MQTT broker, catalogue, rollouts')
    .addOption(
      new Option('--data <folder>', 'everything it keeps').env('LEPTON_DATA_FOLDER').makeOptionMandatory(),
    )
    .addOption(new Option('--region <name>', 'name of the region').env('LEPTON_REGION').makeOptionMandatory())
    .addOption(new Option('--http <host:port>', 'web API').env('LEPTON_HTTP').default('127.0.0.1:8080'))
    .addOption(
      new Option('--mqtt <host:port>', 'broker for devices (TLS)')
        .env('LEPTON_MQTT')
        .default('127.0.0.1:8883'),
    )
    .addOption(
      new Option(
        '--broker <url>',
        'mqtts URL of another broker, such as mosquitto, in the place of our own (`lepton broker files`)',
      ).env('LEPTON_BROKER'),
    )
    .addOption(
      new Option('--advertise-http <url>', 'URL people use, where it differs').env('LEPTON_ADVERTISE_HTTP'),
    )
    .addOption(
      new Option('--advertise-mqtt <url>', 'mqtts URL devices use, where it differs').env(
        'LEPTON_ADVERTISE_MQTT',
      ),
    )
    .addOption(new Option('--http-cert <file>', 'certificate of the web API (PEM)').env('LEPTON_HTTP_CERT'))
    .addOption(new Option('--http-key <file>', 'its private key (PEM)').env('LEPTON_HTTP_KEY'))
    .addOption(
      new Option('--regions <host:port>', 'door for other regions (mutual TLS)').env('LEPTON_REGIONS'),
    )
    .addOption(
      new Option('--advertise-regions <url>', 'https URL under which they reach it, where it differs').env(
        'LEPTON_ADVERTISE_REGIONS',
      ),
    )
    .addOption(
      new Option(
        '--invitation <file>',
        'join the regions at the first start (`lepton regions add` at the home region makes it)',
      ).env('LEPTON_INVITATION'),
    )
    .addOption(
      new Option('--home <url>', 'the home region’s door, where the invitation’s address does not fit').env(
        'LEPTON_HOME',
      ),
    )
    .option(
      '--peer <region=url>',
      'where the door of a region is reached from here, where it differs (repeatable)',
      collect,
    )
    .addOption(
      new Option('--regions-every <duration>', 'pause between two looks at another region (default: 5s)').env(
        'LEPTON_REGIONS_EVERY',
      ),
    )
    .addOption(
      new Option(
        '--model-memory-max <MiB>',
        'what the process of one model may take, whatever its manifest promises (default: 2048)',
      ).env('LEPTON_MODEL_MEMORY_MAX'),
    )
    .addOption(
      new Option('--downloads-max <count>', 'devices that download at one time (default: 64)').env(
        'LEPTON_DOWNLOADS_MAX',
      ),
    )
    .addOption(
      new Option('--device-rate-max <KiB/s>', 'of files, for one device (default: no limit)').env(
        'LEPTON_DEVICE_RATE_MAX',
      ),
    )
    .addOption(
      new Option('--region-rate-max <KiB/s>', 'of files, for all devices (default: no limit)').env(
        'LEPTON_REGION_RATE_MAX',
      ),
    )
    .addOption(
      new Option(
        '--device-rate-min <KiB/s>',
        'a device that takes less gives its turn to the next (default: 1)',
      ).env('LEPTON_DEVICE_RATE_MIN'),
    )
    .addOption(
      new Option(
        '--delta-releases <count>',
        'releases before a new one from which deltas are made (default: 3)',
      ).env('LEPTON_DELTA_RELEASES'),
    )
    .addOption(
      new Option('--delta-space <MiB>', 'disk for compressed files and deltas (default: 4096)').env(
        'LEPTON_DELTA_SPACE',
      ),
    )
    .addOption(
      new Option(
        '--backup-folder <folder>',
        'where `lepton backup create` writes (default: DATA/backups)',
      ).env('LEPTON_BACKUP_FOLDER'),
    )
    .addOption(new Option('--log-level <level>', 'debug, info, warn or error (or LEPTON_LOG_LEVEL)'))
    .option('--json', 'for symmetry: the ready line is JSON anyway')
    .addHelpText(
      'after',
      '\nPort 0 picks a free port at the first start and keeps it. The first admin token is DATA/admin.token.',
    )
    .action(async (flags: ServeFlags) => {
      const named = setting('logLevel', flags.logLevel) ?? 'info';
      const logLevel = levels.find((level) => level === named);
      if (logLevel === undefined) {
        throw new FleetError('config-invalid', `--log-level ${named}: expected ${levels.join(', ')}`);
      }
      const { runServe } = await import('./serve.ts');
      const { logLevel: _, ...rest } = flags;
      await runServe({ ...rest, logLevel, version: programVersion() });
    });
}
