// Why: the ceremonies as a list that people can follow: every line that begins with `$ ` is a whole command.
// Trusts: the names it is given. Must never: print a command that does not work as it stands.

import { speaker } from '../../shared/host/speech.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { wrapCells } from '../../shared/wire/display-width.ts';

export const ceremonyTopics = ['first', 'publisher', 'lost-root', 'stolen-online', 'renew'] as const;
export type CeremonyTopic = (typeof ceremonyTopics)[number];

export interface CeremonyNames {
  holders: readonly string[];
  threshold: number;
  region: string | null;
  namespace: string;
}

interface Step {
  words: string;
  commands: string[];
}

/** A holder's name as a file name: `Alice B.` is `alice-b`. */
function slug(name: string): string {
  const text = name
    .toLowerCase()
    .normalize('NFKD')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return text === '' ? 'holder' : text;
}

/** For a shell: as it stands where that is safe, else in single quotes. */
function quoted(text: string): string {
  return /^[A-Za-z0-9._/@:=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

const keyFile = (holder: string): string => `${slug(holder)}.key`;
const publicFile = (holder: string): string => `${keyFile(holder)}.pub`;
const create = (file: string, holder: string): string =>
  `lepton keys create ${file} --holder ${quoted(holder)}`;
const sign = (bundle: string, file: string): string => `lepton keys sign ${bundle} --key ${file}`;

/** Names that a ceremony is printed for where none are given. */
export function ceremonyNames(
  topic: CeremonyTopic,
  given: { holders?: string[]; threshold?: number; region?: string; namespace?: string },
): CeremonyNames {
  const namespace = given.namespace ?? 'acme';
  const usual = topic === 'publisher' ? [`${namespace}-1`, `${namespace}-2`] : ['alice', 'bob', 'carol'];
  const holders = given.holders ?? usual;
  const threshold = given.threshold ?? Math.min(2, holders.length);
  if (threshold > holders.length)
    throw new FleetError(
      'threshold-unreachable',
      `${threshold} of ${holders.length} holders would have to sign`,
    );
  const files = holders.map(keyFile);
  if (new Set(files).size !== files.length || files.includes('targets.key'))
    throw new FleetError(
      'input-invalid',
      'the holders’ names must differ in more than signs, and none may be "targets"',
    );
  return { holders, threshold, region: given.region ?? null, namespace };
}

function first({ holders, threshold }: CeremonyNames): Step[] {
  const roots = holders.map((holder) => `--root ${publicFile(holder)}`).join(' ');
  return [
    {
      words:
        'Each holder makes a key on a machine of their own, best one without a network, and chooses a passphrase. ' +
        'FILE.key stays there; only FILE.key.pub travels. The key of targets names publishers: it has a holder too.',
      commands: [
        ...holders.map((holder) => create(keyFile(holder), holder)),
        create('targets.key', 'targets'),
      ],
    },
    {
      words: 'Where the registry can be reached: what is in force now, as a file.',
      commands: ['lepton keys plan --out plan.json'],
    },
    {
      words:
        'Carry plan.json and the .pub files to one machine and make the next documents: both roots and targets. ' +
        '(If the registry’s disk may have been copied before: plan with --new-online, and add --online here.)',
      commands: [
        `lepton keys ceremony --plan plan.json ${roots} --threshold ${threshold} --targets targets.key.pub --out ceremony.json`,
      ],
    },
    {
      words:
        `Carry ceremony.json from holder to holder. Each reads what would change, compares the key ids with ` +
        `those that the others say aloud (lepton keys show FILE), and signs; ${threshold} of the ${holders.length} are enough.`,
      commands: [
        ...holders.slice(0, threshold).map((holder) => sign('ceremony.json', keyFile(holder))),
        sign('ceremony.json', 'targets.key'),
      ],
    },
    {
      words:
        'Where the registry can be reached: put it in force. The registry adds the signatures of its development ' +
        'keys and then deletes those keys. Devices follow by themselves.',
      commands: ['lepton keys install ceremony.json', 'lepton keys status'],
    },
    {
      words:
        'Keep each key file and its passphrase apart, with a copy in another building. Backups of the registry ' +
        'from before this day still hold the development keys: destroy them.',
      commands: [],
    },
  ];
}

function publisher({ holders, threshold, namespace }: CeremonyNames): Step[] {
  const keys = holders.map((holder) => `--key ${publicFile(holder)}`).join(' ');
  const [pusher = '', ...others] = holders.slice(0, threshold);
  const steps: Step[] = [
    {
      words: 'Each publisher makes a key on a machine of their own. Only the .pub file travels.',
      commands: holders.map((holder) => create(keyFile(holder), holder)),
    },
    {
      words: 'Where the registry can be reached: what is in force now, as a file.',
      commands: ['lepton keys plan --out plan.json'],
    },
    {
      words: `Who may sign for ${namespace} stands in targets, which is signed offline: make its next version.`,
      commands: [
        `lepton publishers add ${namespace} ${keys} --threshold ${threshold} --plan plan.json --out publisher.json`,
      ],
    },
    {
      words: 'The holder of targets reads what would change and signs.',
      commands: [sign('publisher.json', 'targets.key')],
    },
    {
      words: 'Where the registry can be reached: put it in force.',
      commands: ['lepton keys install publisher.json'],
    },
    {
      words: `From now on a release of ${namespace} needs ${threshold} of these keys. model.onnx stands for your model.`,
      commands: [
        `lepton models push model.onnx --name ${namespace}/model --version 1.0.0 --key ${keyFile(pusher)}`,
        ...others.map((holder) => `lepton models sign ${namespace}/model@1.0.0 --key ${keyFile(holder)}`),
      ],
    },
  ];
  return steps;
}

function lostRoot({ holders, threshold }: CeremonyNames): Step[] {
  const lost = holders.at(-1) ?? '';
  const fresh = `${slug(lost)}-new.key`;
  const left = holders.slice(0, -1);
  if (left.length < threshold) {
    throw new FleetError(
      'threshold-unreachable',
      `without ${lost} only ${left.length} of ${threshold} can sign`,
      {
        hint: 'name more holders, or a lower threshold; devices must otherwise be enrolled again',
      },
    );
  }
  return [
    {
      words: `${lost} (the last holder named) has lost the key: make a new one. (Stolen: the same steps, today.)`,
      commands: [create(fresh, lost)],
    },
    {
      words: 'Where the registry can be reached: what is in force now, as a file.',
      commands: ['lepton keys plan --out plan.json'],
    },
    {
      words:
        'The next roots name the new key instead of the lost one. An id (lepton keys status) works as well as a name.',
      commands: [
        `lepton keys rotate --plan plan.json --replace ${quoted(lost)}=${fresh}.pub --out rotate.json`,
      ],
    },
    {
      words: `${threshold} of the holders who still have their keys read what would change and sign.`,
      commands: left.slice(0, threshold).map((holder) => sign('rotate.json', keyFile(holder))),
    },
    {
      words: 'Where the registry can be reached: put it in force.',
      commands: ['lepton keys install rotate.json', 'lepton keys status'],
    },
  ];
}

function stolenOnline({ holders, threshold }: CeremonyNames): Step[] {
  return [
    {
      words:
        'First close the hole: whoever read the registry’s disk also has its tokens (lepton tokens list, revoke), ' +
        'its fleet CA and its telemetry keys. What the thief cannot do: make a device run bytes no publisher signed.',
      commands: [],
    },
    {
      words: 'The registry makes new online keys. They sign nothing until a root names them.',
      commands: ['lepton keys plan --new-online --out plan.json'],
    },
    {
      words: 'The next roots name them instead of the stolen ones.',
      commands: ['lepton keys rotate --plan plan.json --online --out online.json'],
    },
    {
      words: `${threshold} holders read what would change and sign.`,
      commands: holders.slice(0, threshold).map((holder) => sign('online.json', keyFile(holder))),
    },
    {
      words:
        'Put it in force. The old keys are deleted, every assignment is signed again, and no device that has ' +
        'heard of the new roots takes a word from the old keys.',
      commands: ['lepton keys install online.json', 'lepton keys status'],
    },
  ];
}

function renew({ holders, threshold }: CeremonyNames): Step[] {
  return [
    {
      words: 'Where the registry can be reached: what is in force now, as a file.',
      commands: ['lepton keys plan --out plan.json'],
    },
    {
      words: 'The same keys, new dates: both roots for a year, targets for 180 days.',
      commands: ['lepton keys rotate --plan plan.json --renew --out renew.json'],
    },
    {
      words: `${threshold} holders and the holder of targets sign.`,
      commands: [
        ...holders.slice(0, threshold).map((holder) => sign('renew.json', keyFile(holder))),
        sign('renew.json', 'targets.key'),
      ],
    },
    { words: 'Put it in force.', commands: ['lepton keys install renew.json', 'lepton keys status'] },
  ];
}

const topics: Record<CeremonyTopic, { title: string; steps: (names: CeremonyNames) => Step[] }> = {
  first: { title: 'from development keys to offline ones', steps: first },
  publisher: { title: 'a publisher with several keys', steps: publisher },
  'lost-root': { title: 'a root key is lost', steps: lostRoot },
  'stolen-online': { title: 'the registry’s online keys are stolen', steps: stolenOnline },
  renew: { title: 'signed documents come to their end', steps: renew },
};

export interface Instructions {
  topic: CeremonyTopic;
  title: string;
  steps: Step[];
}

export function ceremonyInstructions(topic: CeremonyTopic, names: CeremonyNames): Instructions {
  const { title, steps } = topics[topic];
  const where = names.region === null ? '' : `, region ${names.region}`;
  return { topic, title: `${title}${where}`, steps: steps(names) };
}

const width = 100;

/** Said before it is broken: a part of a sentence is no message. */
function wrapped(text: string, indent: string): string {
  return wrapCells(speaker().say(text), width - indent.length).join(`\n${indent}`);
}

export function instructionsText({ topic, title, steps }: Instructions): string {
  const others = ceremonyTopics.filter((one) => one !== topic).join(', ');
  return [
    `Ceremony ${topic}: ${title}.`,
    'Commands that reach the registry take LEPTON_REGISTRY and LEPTON_TOKEN (an admin’s); passphrases are asked for.',
    '',
    ...steps.flatMap(({ words, commands }, index) => [
      `${index + 1}. ${wrapped(words, '   ')}`,
      '',
      ...commands.map((command) => `$ ${command}`),
      ...(commands.length === 0 ? [] : ['']),
    ]),
    `Others: lepton keys ceremony ${others}`,
  ].join('\n');
}
