// Why: attacks on the audit record of a region as an auditor has it: one file, a root of the region, and the heads that its
// neighbours kept. Trusts: region-audit-ground.ts. Must never: need a registry, or pass where something was found that
// the attack does not explain.

import assert from 'node:assert/strict';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import {
  auditBegin,
  checkAuditClosing,
  checkAuditHead,
  signAuditClosing,
  signAuditHead,
} from '../../shared/trust/audit.ts';
import type { AuditClosing, AuditEntry } from '../../shared/wire/audit.ts';
import type { Envelope } from '../../shared/wire/messages.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import { nowMs } from './hostile-repository.ts';
import {
  ack,
  at,
  audited,
  base64,
  changed,
  closed,
  closingLine,
  entries,
  entryOf,
  type File,
  file,
  firstAck,
  headLine,
  headOf,
  json,
  kept,
  linesOf,
  mallory,
  otherRegion,
  rechained,
  region,
  resigned,
  root,
  verify,
} from './region-audit-ground.ts';

/** By somebody who has the file and no key: the last line cannot be made to fit again. */
const edits: AttackCase[] = [
  audited('entry-edited', 'an entry of an export is edited', ['edited 4', 'changed'], (lines) =>
    lines.with(at(4), json(changed(4, { actor: 'user:bob' })[3] ?? entryOf(4))),
  ),
  audited(
    'entry-redone',
    'an entry is edited, and its digest made anew',
    ['replaced 5', 'changed'],
    (lines) => {
      const [redone] = rechained([{ ...entryOf(4), actor: 'user:bob' }], entries()[2]?.entrySha256, 4);
      return lines.with(at(4), json(redone ?? entryOf(4)));
    },
  ),
  audited(
    'tail-redone',
    'an entry is edited, and every digest after it made anew',
    ['head 6', 'changed'],
    (lines) => [
      ...lines.slice(0, 1),
      ...rechained(changed(4, { actor: 'user:bob' })).map(json),
      ...lines.slice(headLine),
    ],
  ),
  audited('entries-swapped', 'two entries change places', ['reordered 4', 'changed'], (lines) =>
    lines.with(at(4), lines[at(5)] ?? '').with(at(5), lines[at(4)] ?? ''),
  ),
  audited('entry-removed', 'an entry is taken out', ['removed 4', 'changed'], (lines) =>
    lines.toSpliced(at(4), 1),
  ),
  audited('entry-repeated', 'an entry stands in the file twice', ['inserted 4', 'changed'], (lines) =>
    lines.toSpliced(at(6), 0, lines[at(4)] ?? ''),
  ),
  audited('entry-appended', 'an entry is put behind the newest one', ['inserted 7', 'changed'], (lines) => {
    const [next] = rechained([entryOf(7)], entries()[5]?.entrySha256, 7);
    return lines.toSpliced(headLine, 0, json(next ?? entryOf(7)));
  }),
  audited(
    'entry-numbered-far',
    'an entry with a number that would make the auditor count until its memory is full',
    ['inserted 1000000000000', 'removed 7', 'removed 100008', 'changed'],
    (lines) => {
      const [far] = rechained([entryOf(7)], entries()[5]?.entrySha256, 1e12);
      return lines.toSpliced(headLine, 0, json(far ?? entryOf(7)));
    },
  ),
  audited('tail-cut', 'the newest entry is taken out', ['truncated 5', 'changed'], (lines) =>
    lines.toSpliced(at(6), 1),
  ),
  audited('file-cut', 'the file ends before its signature', ['truncated 6'], (lines) => lines.slice(0, -1)),
  audited('file-empty', 'the file is empty', ['malformed'], () => []),
  audited('line-garbage', 'a line is no JSON', ['malformed', 'removed 4', 'changed'], (lines) =>
    lines.with(at(4), '{'),
  ),
  audited(
    'line-beside-digest',
    'a field is put into an entry that its digest does not cover',
    ['malformed', 'removed 4', 'changed'],
    (lines) => lines.with(at(4), (lines[at(4)] ?? '').replace('{"id"', '{"note":"approved","id"')),
  ),
  audited('head-removed', 'the signed head is taken out', ['malformed', 'changed'], (lines) =>
    lines.toSpliced(headLine, 1),
  ),
  audited('head-twice', 'a second head is put behind the first', ['malformed', 'changed'], (lines) =>
    lines.toSpliced(headLine, 0, lines[headLine] ?? ''),
  ),
  audited(
    'head-first',
    'a head is put before the roots that must have signed it',
    ['malformed', 'changed'],
    (lines) => [lines[headLine] ?? '', ...lines.toSpliced(headLine, 1)],
  ),
  audited('closing-first', 'the signature of the file is put before the roots', ['malformed'], (lines) => [
    lines[closingLine] ?? '',
    ...lines.slice(0, -1),
  ]),
  audited(
    'behind-closing',
    'an entry is put behind the signature of the file',
    ['malformed', 'inserted 4'],
    (lines) => [...lines, lines[at(4)] ?? ''],
  ),
  audited(
    'peer-head-removed',
    'a head with which a neighbour contradicted itself is taken out',
    ['changed'],
    (lines) => lines.toSpliced(closingLine - 1, 1),
  ),
  audited('peer-heads-swapped', 'two heads of a neighbour change places', ['changed'], (lines) =>
    lines.with(8, lines[9] ?? '').with(9, lines[8] ?? ''),
  ),
];

const withHead = (head: Envelope) => (): string[] => resigned(entries(), { head });
const withHeader = (header: Partial<File['header']>) => (): string[] =>
  resigned(entries(), { header: { ...file().header, ...header } });

/** With keys that are not the region's, or not for this. */
const signatures: AttackCase[] = [
  audited('head-stranger', 'the head is signed by somebody else', ['head'], () =>
    withHead(signAuditHead(headOf(entries()), mallory))(),
  ),
  audited('head-other-region', 'the head of a region that was set up with the same key', ['head'], () =>
    withHead(signAuditHead(headOf(entries(), { region: otherRegion }), firstAck))(),
  ),
  audited('head-out-of-schema', 'a signed head over no entry', ['head'], () =>
    withHead(signAuditHead(headOf(entries(), { entries: 0 }), firstAck))(),
  ),
  audited(
    'head-shorter',
    'a genuine older head, so that the entries since can be invented',
    ['inserted 6'],
    () => withHead(signAuditHead(headOf(entries().slice(0, 3)), firstAck))(),
  ),
  audited('closing-stranger', 'the whole file is closed by somebody else', ['changed'], () =>
    closed(linesOf(file()), {}, mallory),
  ),
  audited(
    'closing-other-region',
    'the signature of another region’s export over these lines',
    ['changed'],
    () => closed(linesOf(file()), { region: otherRegion }),
  ),
  audited('closing-is-head', 'a head in the place of the signature of the file', ['changed'], (lines) =>
    lines.with(closingLine, JSON.stringify({ closing: file().head })),
  ),
  audited('root-unsigned', 'the region’s roots in the file are not linked by signatures', ['root'], () =>
    withHeader({ roots: [root(1), root(2, region, 'mallory')].map(base64) })(),
  ),
  audited(
    'root-other-region',
    'the roots of another region under this region’s name',
    ['root', 'root 1'],
    () => {
      const theirs = root(1, otherRegion);
      return withHeader({ roots: [base64(theirs)], rootSha256: sha256Hex(theirs) })();
    },
  ),
  audited('root-digest', 'the file names the digest of another first root', ['root', 'root 1'], () =>
    withHeader({ rootSha256: 'a'.repeat(64) })(),
  ),
  audited(
    'root-invented',
    'a file with roots, heads and signatures of an invented region of this name, for an auditor who has its real root',
    ['root'],
    (lines) => {
      // The real one may be newer than an honest file.
      const header = { ...file().header, roots: [base64(root(1))] };
      const older = closed(linesOf({ ...file(), header }), {}, firstAck);
      assert.deepEqual(verify(older, { root: root(2) }).findings, []);
      return lines;
    },
    () => ({ root: root(1, region, 'mallory') }),
  ),
];

const history = (): AuditEntry[] => rechained(changed(4, { actor: 'user:bob' }));

/** By the region itself, which signs whatever it wants. */
const rewriting: AttackCase[] = [
  audited('first-root', 'the record of a region begins with another root', ['root 1'], () =>
    resigned(rechained(changed(1, { detail: { [auditBegin.rootSha256]: 'a'.repeat(64) } }))),
  ),
  audited('beginning-cut', 'a region cuts off the beginning of its record', ['removed 1', 'replaced 1'], () =>
    resigned(rechained(entries().slice(2), entries()[1]?.entrySha256)),
  ),
  audited('entry-other-region', 'an entry of another region is put into the record', ['inserted 4'], () =>
    resigned(rechained(changed(4, { region: otherRegion }))),
  ),
  audited('head-other-record', 'a head that was signed over another record of this length', ['head 6'], () =>
    resigned(entries(), { head: signAuditHead(headOf(history()), firstAck) }),
  ),
  audited(
    'record-rewritten',
    'a region rewrites its record and signs everything anew; a neighbour holds a head of before',
    ['neighbour 6'],
    () => resigned(history()),
    () => kept({ sequence: 1 }),
  ),
  audited(
    'record-cut',
    'a region cuts the end off its record and signs a later head over what is left',
    ['neighbour 6'],
    () =>
      resigned(entries().slice(0, 5), {
        head: signAuditHead(headOf(entries().slice(0, 5), { sequence: 3 }), firstAck),
      }),
    () => kept({}),
  ),
  audited(
    'head-backdated',
    'a neighbour holds a later head with an earlier time, over entries that the record does not have',
    ['neighbour 9'],
    (lines) => {
      // A later head with a later time says that the file is older, and nothing else.
      const later = verify(lines, kept({ entries: 9, sequence: 3 }));
      assert.deepEqual([later.findings, later.rootsVouchedFor], [[], false]);
      assert.deepEqual(later.neighbours, [{ from: otherRegion, fit: 0, newer: 1 }]);
      return lines;
    },
    () => kept({ entries: 9, sequence: 3, atMs: nowMs }),
  ),
  audited(
    'head-forks',
    'a neighbour was told another history of this length',
    ['neighbour 4'],
    (lines) => lines,
    () => kept({ entries: 4, headSha256: 'f'.repeat(64), sequence: 1 }),
  ),
  audited(
    'neighbour-lies',
    'a neighbour holds against the region a head that the region never signed',
    ['neighbour'],
    (lines) => lines,
    () => kept({ entries: 4, headSha256: 'f'.repeat(64) }, mallory),
  ),
];

const acks = () =>
  [firstAck, ack].map(({ keyId, publicKey }) => ({ keys: [{ keyId, publicKey }], threshold: 1 }));
const told = (
  id: string,
  attack: string,
  code: ErrorCode,
  forged: () => Envelope,
  by = acks,
): AttackCase => ({
  ...directRow('audit', `audit-head-${id}`, attack, code, () => ({
    honest: checkAuditHead(signAuditHead(headOf(entries()), firstAck), region, acks()),
    forged: checkAuditHead(forged(), region, by()),
  })),
  by: 'registry',
});

/** What a region takes from a peer. */
const heads: AttackCase[] = [
  told('of-stranger', 'a peer tells a head that nobody of the region signed', 'audit-head-invalid', () =>
    signAuditHead(headOf(entries()), mallory),
  ),
  told('of-other', 'a peer tells the head of another region as its own', 'audit-head-invalid', () =>
    signAuditHead(headOf(entries(), { region: otherRegion }), ack),
  ),
  told(
    'of-nobody',
    'a head of a region of which no key is known',
    'audit-head-invalid',
    () => signAuditHead(headOf(entries()), ack),
    () => [],
  ),
  told('is-closing', 'the signature of an export is told as a head', 'envelope-malformed', () => {
    const closing: AuditClosing = {
      ...headOf(entries()),
      schemaVersion: 1,
      lines: 1,
      linesSha256: 'a'.repeat(64),
    };
    return signAuditClosing(closing, ack);
  }),
  directRow('audit', 'audit-closing-by-head', 'a head closes an export', 'envelope-malformed', () => {
    const closing = { schemaVersion: 1, region, lines: 1, linesSha256: 'a'.repeat(64), atMs: nowMs } as const;
    return {
      honest: checkAuditClosing(signAuditClosing(closing, ack), region, acks()),
      forged: checkAuditClosing(signAuditHead(headOf(entries()), ack), region, acks()),
    };
  }),
];

export const auditAttacks: readonly AttackCase[] = [...edits, ...signatures, ...rewriting, ...heads];
