// Why: what a model card says to a program: YAML front matter between two lines of `---`, or a card that is JSON as a whole.
// Trusts: nothing in the card. Must never: take prose for a field, or a card that cannot be read for one that says nothing
// against a release.

import { z } from 'zod';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { readYamlFile } from './yaml-file.ts';

export interface CardFields {
  /** SPDX expressions as written; empty where none is named. */
  licences: string[];
  /** The value under a dotted name; undefined where there is none, or where it says nothing. */
  field(name: string): unknown;
}

/** A card is read by people; one that is longer than this is none. */
export const cardBytesMax = 1024 * 1024;

const frontMatter = /^---[ \t]*\r?\n([\s\S]*?)\r?\n---[ \t]*(?:\r?\n|$)/;
const cardSchema = z.record(z.string(), z.json());
const none: CardFields = { licences: [], field: () => undefined };

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function says(value: unknown): boolean {
  if (value === null || value === undefined) return false;
  if (typeof value === 'string') return value.trim() !== '';
  if (Array.isArray(value)) return value.length > 0;
  return !isObject(value) || Object.keys(value).length > 0;
}

function fieldsOf(body: Record<string, unknown>): CardFields {
  const field = (name: string): unknown => {
    let at: unknown = body;
    for (const part of name.split('.')) at = isObject(at) && Object.hasOwn(at, part) ? at[part] : undefined;
    return says(at) ? at : undefined;
  };
  // Both spellings are in use; a card that gives two licences is bound by both.
  const licences = ['licence', 'license'].flatMap((name) => {
    const value = field(name);
    return (Array.isArray(value) ? value : [value]).filter((one) => typeof one === 'string');
  });
  return { licences, field };
}

/** Fields of a card; one without front matter has none. Refusal: `input-invalid`, where it has some that cannot be read. */
export function readCardFields(card: Uint8Array | null): Result<CardFields> {
  if (card === null) return ok(none);
  if (card.length > cardBytesMax)
    return refuse('input-invalid', `the card has more than ${cardBytesMax} bytes`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(card);
  } catch {
    return refuse('input-invalid', 'the card is no UTF-8 text');
  }
  const body = text.trimStart().startsWith('{') ? text : frontMatter.exec(text)?.[1];
  if (body === undefined) return ok(none);
  if (body.trim() === '') return ok(none);
  const read = readYamlFile(body, cardSchema, 'input-invalid');
  return read.ok ? ok(fieldsOf(read.value.data)) : read;
}
