// Why: the residency report as a document for people: what left the region, what was refused, what is kept and why.
// Trusts: the facts, which are counted elsewhere. Must never: leave out what a fact says, or say more.

import { english, type Speaker } from '../../shared/wire/languages.ts';
import type { FlowTotal, KeptClass, ResidencyReport } from '../../shared/wire/residency-report.ts';

const day = (timeMs: number): string => new Date(timeMs).toISOString().slice(0, 10);
const moment = (timeMs: number): string => new Date(timeMs).toISOString();
/** What a policy's writer typed may not end a table or be taken for markup. */
const cell = (text: string | number): string =>
  String(text)
    .replace(/[\r\n]+/g, ' ')
    .replace(/([\\|`*_<>[\]])/g, '\\$1');

function table(
  { word }: Speaker,
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string[] {
  if (rows.length === 0) return [word('Nothing.')];
  return [
    `| ${head.map(word).join(' | ')} |`,
    `|${head.map(() => '---').join('|')}|`,
    ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`),
  ];
}

const spans = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
] as const;

/** `90d`, in the largest unit that says it in whole numbers. */
export function spanWords(ms: number): string {
  const [unit, length] = spans.find(([, one]) => ms % one === 0) ?? ['ms', 1];
  return `${ms / length}${unit}`;
}

function policyLines({ policy, region }: ResidencyReport): string[] {
  if (policy === null)
    return [
      `No policy is in force in ${region}: raw telemetry stays, everything is kept until it is erased.`,
    ];
  const { name, version, sha256, signedBy, putAtMs, cellDevicesMin } = policy;
  return [
    `Policy ${cell(name)}, version ${version}, in force since ${moment(putAtMs)}.`,
    '',
    `- SHA-256 ${sha256}`,
    `- signed by ${signedBy.map((keyId) => keyId.slice(0, 16)).join(', ')}`,
    `- published cells are sums over at least ${cellDevicesMin} devices`,
  ];
}

const flowRow = ({ class: kind, destination, rule, requests, records, bytes }: FlowTotal) => [
  ...[kind, destination, rule],
  ...[requests, records, bytes],
];

const keptRow = (
  { say }: Speaker,
  { class: kind, batches, records, bytes, oldestMs, keptMs, rule, purposes }: KeptClass,
) => [
  ...[kind, records, batches, bytes, oldestMs === null ? '-' : moment(oldestMs)],
  ...[keptMs === null ? say('until erased') : spanWords(keptMs), rule],
  purposes.length === 0
    ? say('not stated')
    : purposes.map(({ purpose, lawfulBasis }) => `${purpose} (${lawfulBasis})`).join('; '),
];

/** Markdown; what people typed into the policy stays as it is. */
export function residencyMarkdown(report: ResidencyReport, voice: Speaker = english): string {
  const { say } = voice;
  const { region, sinceMs, untilMs, madeAtMs, left, refused, kept } = report;
  return [
    say(`# Residency of data in ${region}`),
    '',
    say(`From ${day(sinceMs)} to ${day(untilMs - 1)}, whole days (UTC). Made at ${moment(madeAtMs)}.`),
    '',
    say('## Policy'),
    '',
    ...policyLines(report).map(say),
    '',
    say('## What left the region'),
    '',
    ...table(voice, ['class', 'to', 'rule', 'requests', 'records', 'bytes'], left.map(flowRow)),
    '',
    say('## What was refused'),
    '',
    ...table(
      voice,
      ['class', 'to', 'rule', 'requests'],
      refused.map(({ class: kind, destination, rule, requests }) => [kind, destination, rule, requests]),
    ),
    '',
    say('## What is kept in the region'),
    '',
    ...table(
      voice,
      ['class', 'records', 'batches', 'bytes', 'oldest', 'kept for', 'rule', 'purpose (lawful basis)'],
      kept.map((one) => keptRow(voice, one)),
    ),
    '',
  ].join('\n');
}

/** One document, with a line feed. */
export const residencyJson = (report: ResidencyReport): string => `${JSON.stringify(report, null, 2)}\n`;
