// Why: `lepton policy`: what may leave a region, written, checked, signed and put in force; and what it does.
// Trusts: the registry's answers, validated. Must never: sign a policy without showing what is in it.

import { type Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { FleetError } from '../../shared/kernel/errors.ts';
import { namePattern } from '../../shared/kernel/releases.ts';
import { policySha256, signPolicy, withPolicySignature } from '../../shared/trust/region-policy.ts';
import {
  type FlowClass,
  flowClasses,
  type PolicyFinding,
  policyVersionSchema,
  policyViewSchema,
  type RetentionPlan,
  retentionPlanSchema,
} from '../../shared/wire/region-policy.ts';
import { decideFlow } from '../policy/region-decisions.ts';
import { spanWords } from '../reports/residency.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags } from './flags.ts';
import { openPrivateKey } from './key-files.ts';
import { note, print, size, table, when } from './output.ts';
import { readPolicyBundle, readPolicyFile, writePolicyBundle } from './policy-files.ts';
import { findingText, policyText, versionTable } from './policy-words.ts';

const path = '/api/v1/policy';

interface Question {
  flow: FlowClass;
  destination: string;
}

function question(text: string): Question {
  const [name, destination = '', ...rest] = text.split(':');
  const flow = flowClasses.find((one) => one === name);
  if (flow === undefined || rest.length > 0 || !namePattern.test(destination))
    throw new InvalidArgumentError(`Expected CLASS:REGION, the class one of ${flowClasses.join(', ')}.`);
  return { flow, destination };
}

/** Beside the answer, so that `--json` on stdout stays one document. */
function warn(findings: readonly PolicyFinding[]): void {
  for (const finding of findings) note(`lepton: ${findingText(finding)}\n`);
}

const isProblem = ({ level }: PolicyFinding): boolean => level === 'problem';

function addCheck(policy: Command): void {
  policy
    .command('check')
    .description(
      'look at a policy file, without a registry: exit 1 for what it cannot mean, 2 for what is none',
    )
    .argument('<file>', 'YAML or JSON: apiVersion: lepton/v1, kind: RegionPolicy; or a bundle')
    .addOption(
      new Option('--explain <class:region>', 'which rule decides whether that class may go there').argParser(
        question,
      ),
    )
    .option('--json', 'one JSON document on stdout')
    .action((file: string, flags: { explain?: Question; json?: boolean }) => {
      const { policy: read, findings } = readPolicyBundle(file) ?? readPolicyFile(file);
      const bad = findings.some(isProblem);
      const asked = flags.explain;
      const explained =
        asked === undefined
          ? null
          : {
              class: asked.flow,
              destination: asked.destination,
              ...decideFlow(read, read.metadata.region, asked.flow, asked.destination),
            };
      const { region, name, version } = read.metadata;
      const sha256 = policySha256(read);
      const document = { file, ok: !bad, region, name, version, sha256, findings, explained };
      print({ json: flags.json === true }, document, () =>
        [
          ...findings.map(findingText),
          ...(explained === null
            ? []
            : [
                `${explained.class} to ${explained.destination}: ${explained.allowed ? 'allowed' : 'denied'} by ${explained.rule}${explained.rule.startsWith('flows/') ? `: “${explained.reason}”` : ` (${explained.reason})`}`,
              ]),
          `${file}: policy ${name} of ${region}, version ${version}, ${bad ? 'cannot be put in force' : `SHA-256 ${sha256}`}`,
        ].join('\n'),
      );
      if (bad) process.exitCode = 1;
    });
}

function addPut(policy: Command): void {
  connected(policy.command('put'))
    .description('put a policy in force; with --out write a bundle for holders of region root keys to sign')
    .argument('<file>', 'a policy, or a signed bundle')
    .option('--out <file>', 'write a bundle instead, without a registry')
    .action(async (file: string, flags: GlobalFlags & { out?: string }) => {
      const bundle = readPolicyBundle(file);
      const { policy: read, findings } = bundle ?? readPolicyFile(file);
      warn(findings);
      if (findings.some(isProblem))
        throw new FleetError('policy-file-invalid', `${file} cannot be put in force, see above`);
      const envelope = bundle?.envelope ?? signPolicy(read);
      if (flags.out !== undefined) {
        writePolicyBundle(flags.out, envelope);
        const { region, version } = read.metadata;
        const told = { file: flags.out, region, version, sha256: policySha256(read) };
        print({ json: flags.json === true }, told, () =>
          [
            `version ${version} for ${region} is in ${flags.out}, SHA-256 ${told.sha256}`,
            `next, each holder: lepton policy sign ${flags.out} --key FILE; then lepton policy put ${flags.out}`,
          ].join('\n'),
        );
        return;
      }
      const view = await connect(flags).send('PUT', path, { envelope }, policyViewSchema);
      print({ json: flags.json === true }, view, () =>
        view.inForce === null ? 'no policy is in force' : `in force:\n${versionTable([view.inForce])}`,
      );
    });
}

function addSign(policy: Command): void {
  policy
    .command('sign')
    .description('add the signature of a region root key to a bundle, without a registry')
    .argument('<bundle>', 'as `lepton policy put FILE --out BUNDLE` wrote it')
    .requiredOption('--key <file>', 'private key of the holder')
    .option('--json', 'one JSON document on stdout')
    .action((file: string, flags: { key: string; json?: boolean }) => {
      const bundle = readPolicyBundle(file);
      if (bundle === null)
        throw new FleetError('policy-file-invalid', `${file} is no bundle`, {
          hint: 'make one with: lepton policy put FILE --out BUNDLE',
        });
      warn(bundle.findings);
      const signer = openPrivateKey(flags.key);
      const envelope = withPolicySignature(bundle.envelope, signer);
      writePolicyBundle(file, envelope);
      const sha256 = policySha256(bundle.policy);
      const signedBy = envelope.signatures.map(({ keyid }) => keyid);
      print({ json: flags.json === true }, { file, keyId: signer.keyId, sha256, signedBy }, () =>
        [
          policyText(bundle.policy),
          '',
          `signed by ${signer.keyId.slice(0, 16)}; ${signedBy.length} signatures, SHA-256 ${sha256}`,
          `next: lepton policy sign ${file} --key FILE, or lepton policy put ${file}`,
        ].join('\n'),
      );
    });
}

const retentionText = (plan: RetentionPlan): string =>
  table(
    ['CLASS', 'KEPT', 'RULE', 'RECORDS', 'BATCHES', 'BYTES', 'OLDEST'],
    plan.map(({ class: kind, keptMs, rule, records, batches, bytes, oldestMs }) => [
      ...[kind, keptMs === null ? 'until erased' : spanWords(keptMs), rule],
      ...[String(records), String(batches), size(bytes), when(oldestMs)],
    ]),
  );

export function addPolicyCommands(program: Command): void {
  const policy = program
    .command('policy')
    .description('what may leave the region, how long things are kept and what may be installed');
  addCheck(policy);
  addPut(policy);
  addSign(policy);

  connected(policy.command('show'))
    .description('the policy in force')
    .action(async (flags: GlobalFlags) => {
      const view = await connect(flags).get(path, policyViewSchema);
      const { inForce } = view;
      print({ json: flags.json === true }, view, () =>
        inForce === null
          ? `no policy is in force in ${view.region}: raw telemetry stays, everything is kept until it is erased`
          : [
              policyText(inForce.policy),
              '',
              versionTable([inForce]),
              ...(inForce.olderRoot
                ? ['the region root names other keys since: its holders should sign a next version']
                : []),
            ].join('\n'),
      );
    });

  connected(policy.command('history'))
    .description('every version that was in force')
    .action(async (flags: GlobalFlags) => {
      const versions = await connect(flags).get(`${path}/history`, z.array(policyVersionSchema));
      print({ json: flags.json === true }, versions, () => versionTable(versions));
    });

  connected(policy.command('retention'))
    .description('what is older than its class is kept; the registry deletes it every hour')
    .option('--dry-run', 'what would be deleted now (the default: this command deletes nothing)')
    .action(async (flags: GlobalFlags) => {
      const plan = await connect(flags).get(`${path}/retention`, retentionPlanSchema);
      print({ json: flags.json === true }, plan, () => retentionText(plan));
    });
}
