// Why: the chain of audit entries in the registry's database: what is appended, what was begun and not ended, what is read.
// Trusts: its callers for who asked; the store for one transaction after the other. Must never: change or remove an entry,
// or let a token into one.

import { invariant } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { auditBegin, auditEntrySha256, noEntrySha256 } from '../../shared/trust/audit.ts';
import type { AuditEntry, AuditPage } from '../../shared/wire/audit.ts';
import { createRate } from '../fleet/rate.ts';
import { withoutTokens } from '../policy/access.ts';
import type { AuditEntriesTable } from '../store/audit-tables.ts';
import { fixed, type RegistryDb, type RegistryStore } from '../store/open.ts';
import type { Audit, NewAuditEntry } from './audit.ts';
import { auditLimits } from './limits.ts';

export interface AuditQuery {
  /** Entries behind this id. */
  after?: number;
  actor?: string;
  action?: string;
  subject?: string;
  limit: number;
}

export interface AuditRecord extends Audit {
  /** Before something is changed, so that an end in between is found; durable when it resolves. */
  begin(entry: NewAuditEntry): Promise<number>;
  /** What came of it, in the place of what `begin` noted. */
  finish(openId: number, entry: NewAuditEntry): Promise<void>;
  /** A refusal, within bounds for each `key`: the rest is counted, and the next entry of this kind says how many. */
  appendRefusal(key: string, entry: NewAuditEntry): Promise<void>;
  /** Refusals that were counted and not written, since the start. */
  omitted(): number;
  /** Oldest first. */
  list(query: AuditQuery): Promise<AuditPage>;
}

const textMax = { actor: 256, action: 128, subject: 512, reason: 1_000, code: 128, rule: 256, address: 128 };
const detailKeyMax = 128;
const detailTextMax = 512;
const loneSurrogates = /\p{Surrogate}/gu;

/** As it may stand in an entry: no token, no half of a character, not longer than the schema says. */
function plain(text: string, charactersMax: number): string {
  const clean = withoutTokens(text).replace(loneSurrogates, '\ufffd');
  if (clean.length <= charactersMax) return clean;
  // The cut may part a pair.
  return clean.slice(0, charactersMax).replace(loneSurrogates, '');
}

function cleaned(entry: NewAuditEntry): NewAuditEntry {
  const { actor, via, action, subject, reason, outcome, code, rule, address } = entry;
  const orNull = (text: string | null, max: number): string | null =>
    text === null ? null : plain(text, max);
  const detail: NewAuditEntry['detail'] = {};
  for (const [key, value] of Object.entries(entry.detail)) {
    const name = plain(key, detailKeyMax);
    if (typeof value === 'string') detail[name] = plain(value, detailTextMax);
    // A fraction has no canonical form.
    else if (typeof value === 'number') detail[name] = Number.isSafeInteger(value) ? value : String(value);
    else detail[name] = value;
  }
  return {
    actor: plain(actor, textMax.actor),
    via,
    action: plain(action, textMax.action),
    subject: orNull(subject, textMax.subject),
    reason: orNull(reason, textMax.reason),
    outcome,
    code: orNull(code, textMax.code),
    rule: orNull(rule, textMax.rule),
    address: orNull(address, textMax.address),
    detail,
  };
}

export function entryOf(row: AuditEntriesTable): AuditEntry {
  return {
    id: row.id,
    atMs: row.at_ms,
    region: row.region,
    actor: row.actor,
    via: row.via,
    action: row.action,
    subject: row.subject,
    reason: row.reason,
    outcome: row.outcome,
    code: row.code,
    rule: row.rule,
    address: row.address,
    detail: JSON.parse(row.detail),
    previousSha256: row.previous_sha256,
    entrySha256: row.entry_sha256,
  };
}

const lastQuery = fixed((qb) =>
  qb.selectFrom('audit_entries').select(['id', 'entry_sha256']).orderBy('id', 'desc').limit(1),
);

/** The newest entry, or undefined before the first one. */
export const lastEntryIn = (
  db: RegistryDb,
  qb: RegistryStore['qb'],
): { id: number; entry_sha256: string } | undefined => db.first(lastQuery(qb));

/**
 * Opens the chain; the first time it begins it with an entry that names the region and the digest of its first root. What was
 * under way when the registry ended becomes an entry with the outcome `failed` and the code `interrupted`.
 */
export async function openAuditRecord(parts: {
  store: RegistryStore;
  region: string;
  /** Digest of the region's first root. */
  rootSha256: string;
  clock: Clock;
}): Promise<AuditRecord> {
  const { store, region, clock } = parts;
  const { qb } = store;
  const rate = createRate(clock, auditLimits.refusals);
  let omitted = 0;
  let omittedUnsaid = 0;

  function appendIn(db: RegistryDb, wanted: NewAuditEntry): void {
    const last = lastEntryIn(db, qb);
    const entry = cleaned(wanted);
    const body = {
      ...entry,
      id: (last?.id ?? 0) + 1,
      atMs: clock.wall(),
      region,
      previousSha256: last?.entry_sha256 ?? noEntrySha256,
    };
    const row: AuditEntriesTable = {
      id: body.id,
      at_ms: body.atMs,
      region,
      actor: entry.actor,
      via: entry.via,
      action: entry.action,
      subject: entry.subject,
      reason: entry.reason,
      outcome: entry.outcome,
      code: entry.code,
      rule: entry.rule,
      address: entry.address,
      detail: JSON.stringify(entry.detail),
      previous_sha256: body.previousSha256,
      entry_sha256: auditEntrySha256(body),
    };
    db.run(qb.insertInto('audit_entries').values(row));
  }

  await store.tx((db) => {
    if (lastEntryIn(db, qb) === undefined) {
      const begin = { actor: 'registry', via: 'start', action: auditBegin.action, subject: region } as const;
      const nothing = { reason: null, code: null, rule: null, address: null };
      const detail = { [auditBegin.rootSha256]: parts.rootSha256 };
      appendIn(db, { ...begin, ...nothing, outcome: 'done', detail });
    }
    for (const { at_ms: beganAtMs, entry } of db.all(
      qb.selectFrom('audit_open').selectAll().orderBy('open_id'),
    )) {
      const begun: NewAuditEntry = JSON.parse(entry);
      const detail = { ...begun.detail, beganAtMs };
      appendIn(db, { ...begun, outcome: 'failed', code: 'interrupted', detail });
    }
    db.run(qb.deleteFrom('audit_open'));
  });

  return {
    appendIn,
    append: (entry) => store.tx((db) => appendIn(db, entry)),

    begin: (entry) =>
      store.tx((db) => {
        const row = { at_ms: clock.wall(), entry: JSON.stringify(cleaned(entry)) };
        const made = db.first(qb.insertInto('audit_open').values(row).returning('open_id'));
        invariant(made !== undefined, 'an insert that returns its row returned none');
        return made.open_id;
      }),

    finish: (openId, entry) =>
      store.tx((db) => {
        db.run(qb.deleteFrom('audit_open').where('open_id', '=', openId));
        appendIn(db, entry);
      }),

    async appendRefusal(key, entry) {
      if (!rate.admit(key)) {
        omitted += 1;
        omittedUnsaid += 1;
        return;
      }
      const unsaid = omittedUnsaid;
      omittedUnsaid = 0;
      const detail = unsaid === 0 ? entry.detail : { ...entry.detail, omittedBefore: unsaid };
      try {
        await store.tx((db) => appendIn(db, { ...entry, detail }));
      } catch (error) {
        omittedUnsaid += unsaid;
        throw error;
      }
    },
    omitted: () => omitted,

    async list({ after = 0, actor, action, subject, limit }) {
      let query = qb
        .selectFrom('audit_entries')
        .selectAll()
        .where('id', '>', after)
        .orderBy('id')
        .limit(limit + 1);
      if (actor !== undefined) query = query.where('actor', '=', actor);
      if (action !== undefined) query = query.where('action', '=', action);
      if (subject !== undefined) query = query.where('subject', '=', subject);
      const rows = await store.tx((db) => db.all(query));
      const entries = rows.slice(0, limit).map(entryOf);
      return { entries, after: rows.length > limit ? (entries.at(-1)?.id ?? null) : null };
    },
  };
}
