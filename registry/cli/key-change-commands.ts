// Why: `lepton keys ceremony`, `rotate` and `revoke`: from a plan to a bundle that people sign; no network.
// Trusts: key-bundles.ts for what can work. Must never: sign, or guess which key was meant.

import { Argument, type Command } from 'commander';
import { FleetError } from '../../shared/kernel/errors.ts';
import { type Change, rolesWith } from '../../shared/trust/ceremony/change.ts';
import { publisherRole, type RoleName, type Standing } from '../../shared/trust/ceremony/standing.ts';
import { type KeyPlan, onlineRoles } from '../../shared/wire/key-plan.ts';
import { collect, positive } from './flags.ts';
import { keyIdOf, makeBundle, type OpenBundle, onlineChanges, signatureWords } from './key-bundles.ts';
import { keyArgument, readHeldKey } from './key-files.ts';
import {
  type CeremonyTopic,
  ceremonyInstructions,
  ceremonyNames,
  ceremonyTopics,
  instructionsText,
} from './key-instructions.ts';
import { print } from './output.ts';

interface BundleFlags {
  plan: string;
  out: string;
  json?: boolean;
}

function planned(command: Command): Command {
  return command
    .requiredOption('--plan <file>', 'what is in force, from `lepton keys plan`')
    .requiredOption('--out <file>', 'where to write the bundle')
    .option('--json', 'one JSON document on stdout');
}

/** What was made, in words, and who is to sign it. */
export function printBundle(flags: { out: string; json?: boolean }, made: OpenBundle): void {
  const { changes, missing, addedAtInstall } = made;
  const view = { changes, missing, addedAtInstall };
  print({ json: flags.json === true }, { file: flags.out, ...view }, () =>
    [...changes, `written to ${flags.out}`, ...signatureWords(view, flags.out)].join('\n'),
  );
}

export function addChangeCommands(keys: Command): void {
  addCeremony(keys);
  addRotate(keys);
  addRevoke(keys);
}

interface CeremonyFlags {
  plan?: string;
  out?: string;
  root?: string[];
  threshold?: number;
  targets?: string[];
  targetsThreshold?: number;
  regionRoot?: string[];
  online?: boolean;
  holder?: string[];
  region?: string;
  namespace?: string;
  json?: boolean;
}

function addCeremony(keys: Command): void {
  keys
    .command('ceremony')
    .description('print a ceremony step by step; with --plan: make the bundle of the first one')
    .addArgument(new Argument('[topic]', 'which one to print').choices([...ceremonyTopics]).default('first'))
    .option('--holder <name>', 'print for these holders (repeatable)', collect)
    .option('--threshold <n>', 'how many of them must sign', positive)
    .option('--region <name>', 'print for this region')
    .option('--namespace <ns>', 'print for this publisher')
    .option('--plan <file>', 'make a bundle from this plan')
    .option('--root <file>', 'public key of a root holder (repeatable)', collect)
    .option('--targets <file>', 'public key for targets (repeatable)', collect)
    .option('--targets-threshold <n>', 'how many of those must sign', positive)
    .option(
      '--region-root <file>',
      'public key for the region’s root (repeatable; default: as --root)',
      collect,
    )
    .option('--online', 'with the new online keys of the plan')
    .option('--out <file>', 'where to write the bundle')
    .option('--json', 'one JSON document on stdout')
    .addHelpText('after', `\nTopics: ${ceremonyTopics.join(', ')}.`)
    .action((topic: CeremonyTopic, flags: CeremonyFlags) => {
      if (flags.plan !== undefined) return makeCeremony(flags, flags.plan);
      const { holder: holders, threshold, region, namespace } = flags;
      const names = ceremonyNames(topic, {
        ...(holders === undefined ? {} : { holders }),
        ...(threshold === undefined ? {} : { threshold }),
        ...(region === undefined ? {} : { region }),
        ...(namespace === undefined ? {} : { namespace }),
      });
      const instructions = ceremonyInstructions(topic, names);
      print({ json: flags.json === true }, instructions, () => instructionsText(instructions));
    });
}

function makeCeremony(flags: CeremonyFlags, plan: string): void {
  const { root, targets, out, threshold = 2 } = flags;
  if (root === undefined || targets === undefined || out === undefined) {
    throw new FleetError('config-invalid', 'a ceremony needs --root (each holder), --targets and --out', {
      hint: 'lepton keys ceremony prints the whole command',
    });
  }
  const made = makeBundle({
    plan,
    out,
    renew: true,
    changes: ({ plan: read }) => [
      { kind: 'set', role: 'root', keys: root.map(readHeldKey), threshold },
      { kind: 'set', role: 'region-root', keys: (flags.regionRoot ?? root).map(readHeldKey), threshold },
      {
        kind: 'set',
        role: 'targets',
        keys: targets.map(readHeldKey),
        threshold: flags.targetsThreshold ?? 1,
      },
      ...(flags.online === true ? onlineChanges(read) : []),
    ],
  });
  printBundle({ out, ...(flags.json === undefined ? {} : { json: flags.json }) }, made);
}

function roleName(text: string): RoleName {
  if (text === 'root' || text === 'targets' || text === 'region-root') return text;
  if (text.startsWith('publisher:')) return publisherRole(text.slice('publisher:'.length));
  const online = (onlineRoles as readonly string[]).includes(text);
  throw new FleetError(
    'input-invalid',
    online ? `${text} is the registry’s: rotate it with --online` : `there is no role ${text}`,
    { hint: 'roles: root, targets, region-root, publisher:NAMESPACE' },
  );
}

function halves(text: string, flag: string): [string, string] {
  const at = text.lastIndexOf('=');
  if (at < 1 || at === text.length - 1)
    throw new FleetError('config-invalid', `${flag} ${text}: expected two sides of an equals sign`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function wholeNumber(text: string, flag: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new FleetError('config-invalid', `${flag} ${text}: expected a whole number from 1 up`);
}

interface RotateFlags extends BundleFlags {
  replace?: string[];
  remove?: string[];
  add?: string[];
  threshold?: string[];
  online?: boolean;
  renew?: boolean;
  renewPublisher?: string[];
  leaveUnsigned?: string[];
}

function rotation(flags: RotateFlags, plan: KeyPlan, standing: Standing): Change[] {
  const offlineKey = (text: string): string => {
    const keyId = keyIdOf(standing, text);
    const online = rolesWith(standing.roles, keyId).find((role) =>
      (onlineRoles as readonly string[]).includes(role),
    );
    if (online === undefined) return keyId;
    throw new FleetError(
      'input-invalid',
      `${text} is the registry’s key for ${online}: lepton keys revoke ${text}`,
    );
  };
  return [
    ...(flags.replace ?? []).map((text): Change => {
      const [old, file] = halves(text, '--replace');
      return { kind: 'replace', keyId: offlineKey(old), by: keyArgument(file) };
    }),
    ...(flags.remove ?? []).map((text): Change => ({ kind: 'remove', keyId: offlineKey(text) })),
    ...(flags.add ?? []).map((text): Change => {
      const [role, file] = halves(text, '--add');
      return { kind: 'add', role: roleName(role), key: keyArgument(file) };
    }),
    ...(flags.threshold ?? []).map((text): Change => {
      const [role, number] = halves(text, '--threshold');
      return { kind: 'threshold', role: roleName(role), threshold: wholeNumber(number, '--threshold') };
    }),
    ...(flags.online === true ? onlineChanges(plan) : []),
  ];
}

function addRotate(keys: Command): void {
  planned(keys.command('rotate'))
    .description('make the bundle of a change of keys; works without a network')
    .option(
      '--replace <old=new.pub>',
      'in every role of the old key: its id, holder or .pub (repeatable)',
      collect,
    )
    .option('--remove <key>', 'from every role (repeatable)', collect)
    .option('--add <role=new.pub>', 'to root, targets, region-root or publisher:NS (repeatable)', collect)
    .option('--threshold <role=n>', 'how many keys of a role must sign (repeatable)', collect)
    .option('--online', 'the new online keys of the plan instead of the present ones')
    .option('--renew', 'new dates for both roots and targets')
    .option('--renew-publisher <ns>', 'a new date for what a publisher has signed (repeatable)', collect)
    .option(
      '--leave-unsigned <ns>',
      'let devices refuse this namespace until its publisher signs again (repeatable)',
      collect,
    )
    .addHelpText(
      'after',
      '\nAll changes are applied, then judged: a key may go and another come in one bundle.',
    )
    .action((flags: RotateFlags) => {
      const made = makeBundle({
        plan: flags.plan,
        out: flags.out,
        changes: ({ plan, standing }) => rotation(flags, plan, standing),
        renew: flags.renew ?? false,
        renewPublishers: flags.renewPublisher ?? [],
        leaveUnsigned: flags.leaveUnsigned ?? [],
      });
      printBundle(flags, made);
    });
}

function addRevoke(keys: Command): void {
  planned(keys.command('revoke'))
    .description('make the bundle that takes a key out of every role; works without a network')
    .argument('<key>', 'its id (eight digits are enough), its holder, or its .pub file')
    .option('--replace-with <new.pub>', 'put this key in its place')
    .option(
      '--leave-unsigned <ns>',
      'let devices refuse this namespace until its publisher signs again',
      collect,
    )
    .addHelpText('after', '\nAn online key of the registry is replaced by a new one: plan with --new-online.')
    .action((text: string, flags: BundleFlags & { replaceWith?: string; leaveUnsigned?: string[] }) => {
      const made = makeBundle({
        plan: flags.plan,
        out: flags.out,
        leaveUnsigned: flags.leaveUnsigned ?? [],
        changes: ({ plan, standing }) => {
          const keyId = keyIdOf(standing, text);
          const roles = rolesWith(standing.roles, keyId);
          const online = roles.filter((role) => (onlineRoles as readonly string[]).includes(role));
          if (online.length > 0) {
            if (flags.replaceWith !== undefined)
              throw new FleetError(
                'input-invalid',
                `${online.join(', ')}: the registry makes its own new key`,
                {
                  hint: 'leave --replace-with out and plan with --new-online',
                },
              );
            return onlineChanges(plan, online);
          }
          return [
            flags.replaceWith === undefined
              ? { kind: 'remove', keyId }
              : { kind: 'replace', keyId, by: keyArgument(flags.replaceWith) },
          ];
        },
      });
      printBundle(flags, made);
    });
}
