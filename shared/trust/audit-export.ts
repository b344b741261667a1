// Why: an auditor with a file and no registry finds every entry that was edited, left out, put elsewhere or added, and a region
// that rewrote its whole record but cannot rewrite the heads that its neighbours hold.
// Trusts: the region root that the auditor has; without one, the roots in the file, and says so.
// Must never: stop at the first finding, or call a file sound that does not end with its region's signature.

import { parseStrictJson } from '../crypto/canonical-json.ts';
import { type DigestStream, sha256Hex, sha256Stream } from '../crypto/digests.ts';
import {
  type AuditEntry,
  type AuditExportHeader,
  type AuditHead,
  type AuditLine,
  type AuditPeerHead,
  auditLineSchema,
} from '../wire/audit.ts';
import { describeIssues, type Envelope } from '../wire/messages.ts';
import { checkAuditClosing, checkAuditHead } from './audit.ts';
import { type AuditFindingKind, Chain } from './audit-chain.ts';
import { parseRegionRoot, type RegionRoot, updateRegionRoot } from './region.ts';
import type { RoleKeys } from './tuf/metadata.ts';

export interface AuditFinding {
  kind: AuditFindingKind;
  /** Id of the entry, where it is about one. */
  entry: number | null;
  /** Of the file, from 1. */
  line: number | null;
  words: string;
}

/** A head of the region that another region's export holds. */
export interface NeighbourHead {
  /** Names the export that it was found in. */
  from: string;
  envelope: Envelope;
}

export interface AuditReport {
  region: string | null;
  rootSha256: string | null;
  /** Whether the roots are held by one that the auditor gave. */
  rootsVouchedFor: boolean;
  entries: number;
  head: AuditHead | null;
  /** Heads from neighbours that fit, and that are newer than the file and say nothing about it. */
  neighbours: { from: string; fit: number; newer: number }[];
  /** Heads of other regions that the file holds and their registry found to contradict each other. */
  peerConflicts: number;
  findings: AuditFinding[];
  /** Findings beyond those listed. */
  more: number;
}

export interface AuditVerification {
  /** One line without its line feed, in the order of the file. */
  line(bytes: Uint8Array): void;
  end(): AuditReport;
}

const findingsMax = 100;
const lineFeed = new Uint8Array([0x0a]);

function readLine(bytes: Uint8Array): AuditLine | string {
  const json = parseStrictJson(bytes);
  if (!json.ok) return json.refusal.detail;
  const parsed = auditLineSchema.safeParse(json.value);
  return parsed.success ? parsed.data : describeIssues(parsed.error);
}

/** Every root from the first on, each signed by the one before; or what is wrong with them, in words. */
function readRoots(header: AuditExportHeader, given: Uint8Array | null): RegionRoot[] | string {
  const files = header.roots.map((text) => new Uint8Array(Buffer.from(text, 'base64')));
  const roots: RegionRoot[] = [];
  let before: Uint8Array | null = null;
  for (const file of files) {
    const root = before === null ? parseRegionRoot(file) : updateRegionRoot(before, file);
    if (!root.ok) return `root ${roots.length + 1} of the file: ${root.refusal.detail}`;
    if (root.value.region !== header.region)
      return `the roots in the file are of ${root.value.region}, the file is of ${header.region}`;
    roots.push(root.value);
    before = file;
  }
  if (files[0] === undefined || sha256Hex(files[0]) !== header.rootSha256)
    return 'the digest in the header is not that of the first root in the file';
  if (given === null) return roots;
  if (files.some((file) => Buffer.compare(file, given) === 0)) return roots;
  // The auditor's may be the next one after those in the file.
  const next = before === null ? null : updateRegionRoot(before, given);
  if (next?.ok !== true) return 'the region root that was given is not one of those in the file';
  return [...roots, next.value];
}

type Section = 'header' | 'entries' | 'head' | 'peerHeads' | 'closing';
const order: readonly Section[] = ['header', 'entries', 'head', 'peerHeads', 'closing'];

/**
 * Checks an export of `GET /api/v1/audit/export`. `root`: exact bytes of a root of the region that the auditor holds.
 * `neighbours`: heads of that region from exports of others. Memory does not grow with the file, but with its gaps.
 */
export function createAuditVerification(parts: {
  root: Uint8Array | null;
  neighbours: readonly NeighbourHead[];
}): AuditVerification {
  const findings: AuditFinding[] = [];
  let more = 0;
  let lineNumber = 0;
  const add = (kind: AuditFindingKind, entry: number | null, line: number | null, words: string): void => {
    if (findings.length < findingsMax) findings.push({ kind, entry, line, words });
    else more += 1;
  };
  const chain = new Chain((kind, entry, words) =>
    add(kind, entry, lineNumber === 0 ? null : lineNumber, words),
  );
  const digest: DigestStream = sha256Stream();
  let header: AuditExportHeader | null = null;
  /** Who may sign for the region, once its roots are found good. */
  let ours: { region: string; signers: readonly RoleKeys[] } | null = null;
  let section: Section | null = null;
  let head: AuditHead | null = null;
  let peerConflicts = 0;
  const tally = new Map<string, { from: string; fit: number; newer: number }>();
  /** Heads of neighbours whose signature holds, by their count. */
  const held = new Map<number, { from: string; head: AuditHead }[]>();

  function takeHeader(wanted: AuditExportHeader): void {
    header = wanted;
    const roots = readRoots(wanted, parts.root);
    if (typeof roots === 'string') {
      add('root', null, lineNumber, roots);
      return;
    }
    const signers = roots.map(({ roles }) => roles.ack);
    ours = { region: wanted.region, signers };
    for (const { from, envelope } of parts.neighbours) {
      const checked = checkAuditHead(envelope, wanted.region, signers);
      if (!checked.ok) {
        const words = `a head of ${wanted.region} in ${from} was not signed under these roots: ${checked.refusal.detail}`;
        add('neighbour', null, null, words);
        continue;
      }
      const same = held.get(checked.value.entries) ?? [];
      same.push({ from, head: checked.value });
      held.set(checked.value.entries, same);
    }
  }

  const tallyOf = (from: string): { from: string; fit: number; newer: number } => {
    const one = tally.get(from) ?? { from, fit: 0, newer: 0 };
    tally.set(from, one);
    return one;
  };

  function takeEntry(entry: AuditEntry): void {
    chain.take(entry, header?.region ?? null, header?.rootSha256 ?? null);
    for (const { from, head: theirs } of held.get(entry.id) ?? []) {
      if (theirs.headSha256 === entry.entrySha256) tallyOf(from).fit += 1;
      else
        add(
          'neighbour',
          entry.id,
          lineNumber,
          `${from} holds a head that ${theirs.region} signed over ${entry.id} entries (head ${theirs.sequence}), and it does not fit this record: entry ${entry.id} or one before it was rewritten since`,
        );
    }
    held.delete(entry.id);
  }

  function takeHead(envelope: Envelope): void {
    if (ours === null) return;
    const checked = checkAuditHead(envelope, ours.region, ours.signers);
    if (!checked.ok) {
      add('head', null, lineNumber, `the newest head: ${checked.refusal.detail}`);
      return;
    }
    head = checked.value;
    const { last } = chain;
    const id = last?.id ?? 0;
    if (head.entries > id)
      add(
        'truncated',
        id,
        lineNumber,
        `the head covers ${head.entries} entries, the file ends with entry ${id}`,
      );
    else if (head.entries < id)
      add(
        'inserted',
        id,
        lineNumber,
        `the head covers ${head.entries} entries, the file ends with entry ${id}`,
      );
    else if (last !== null && head.headSha256 !== last.entrySha256)
      add('head', id, lineNumber, `the head was signed over another entry ${id} than the one in the file`);
  }

  function takePeerHead({ conflict }: AuditPeerHead): void {
    if (conflict !== null) peerConflicts += 1;
  }

  function takeClosing(envelope: Envelope): void {
    if (ours === null) return;
    const checked = checkAuditClosing(envelope, ours.region, ours.signers);
    if (!checked.ok) {
      add('changed', null, lineNumber, `the last line: ${checked.refusal.detail}`);
      return;
    }
    const { lines, linesSha256 } = checked.value;
    const before = lineNumber - 1;
    if (lines !== before)
      add(
        'changed',
        null,
        lineNumber,
        `the region signed an export of ${lines} lines, ${before} are in the file`,
      );
    else if (linesSha256 !== digest.hex())
      add('changed', null, lineNumber, 'the region signed other lines than those in the file');
  }

  /** Sections follow each other; the first, the third and the last have one line. */
  function enter(next: Section): void {
    const repeats = next === section && (next === 'entries' || next === 'peerHeads');
    const from = section === null ? -1 : order.indexOf(section);
    const to = order.indexOf(next);
    const skips = order.slice(from + 1, to).some((one) => one === 'header' || one === 'head');
    if (!repeats && (to <= from || skips))
      add('malformed', null, lineNumber, `line ${lineNumber} (${next}) stands where it does not belong`);
    if (to > from) section = next;
  }

  return {
    line(bytes) {
      lineNumber += 1;
      const line = readLine(bytes);
      if (typeof line === 'string') add('malformed', null, lineNumber, `line ${lineNumber}: ${line}`);
      else if ('header' in line) {
        enter('header');
        if (header === null) takeHeader(line.header);
      } else if ('entry' in line) {
        enter('entries');
        takeEntry(line.entry);
      } else if ('head' in line) {
        enter('head');
        takeHead(line.head);
      } else if ('peerHead' in line) {
        enter('peerHeads');
        takePeerHead(line.peerHead);
      } else {
        const closed = section === 'closing';
        enter('closing');
        if (!closed) takeClosing(line.closing);
      }
      // Nothing behind the last line is covered by it; `enter` says that it does not belong there.
      if (section === 'closing') return;
      digest.update(bytes);
      digest.update(lineFeed);
    },

    end() {
      lineNumber = 0;
      chain.end();
      if (section === null) add('malformed', null, null, 'the file is empty');
      else if (section !== 'closing')
        add(
          'truncated',
          chain.last?.id ?? null,
          null,
          'the file does not end with the signature of its region',
        );
      for (const same of held.values()) {
        for (const { from, head: theirs } of same) {
          // Signed after the file: it says nothing about it.
          if (head !== null && theirs.sequence > head.sequence && theirs.atMs >= head.atMs) {
            tallyOf(from).newer += 1;
            continue;
          }
          const last = chain.last?.id ?? 0;
          const what =
            last < theirs.entries
              ? `this record ends with entry ${last}: entries were cut off since`
              : `entry ${theirs.entries} is not in this record`;
          const words = `${from} holds a head that ${theirs.region} signed over ${theirs.entries} entries (head ${theirs.sequence}); ${what}`;
          add('neighbour', theirs.entries, null, words);
        }
      }
      return {
        region: header?.region ?? null,
        rootSha256: header?.rootSha256 ?? null,
        rootsVouchedFor: parts.root !== null && ours !== null,
        entries: chain.count,
        head,
        neighbours: [...tally.values()],
        peerConflicts,
        findings,
        more,
      };
    },
  };
}
