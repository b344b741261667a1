// Why: every file and message format holds to vectors with a closed list of outcomes.
// Trusts: test/vectors/*.json as the record of what is agreed. Must never: accept an outcome that the
// list of its format does not name.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { z } from 'zod';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import { parseGolden } from '../../shared/wire/golden.ts';
import { jsonSchemaFiles } from '../../shared/wire/json-schemas.ts';
import { manifestSchema } from '../../shared/wire/manifest.ts';
import {
  assignmentSchema,
  enrolReplySchema,
  enrolRequestSchema,
  fetchRequestSchema,
  parseMessage,
  presenceSchema,
  reportSchema,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import { parseInferRequest } from '../../shared/wire/oip-json.ts';
import { parseProfile } from '../../shared/wire/profile.ts';
import { rolloutFileSchema } from '../../shared/wire/rollout-file.ts';
import { projectFolder, readJson } from '../support/data.ts';

interface Vector {
  name: string;
  outcome: string;
  body?: unknown;
  text?: string;
  base64?: string;
}

const twoFloats = new Uint8Array(new Float32Array([1, 2]).buffer);
const outcomeOf = (result: { ok: true } | { ok: false; refusal: { code: string } }): string =>
  result.ok ? 'accepted' : result.refusal.code;
/** Formats whose reader stands elsewhere: the schema decides, the reader names the code. */
const bySchema =
  (schema: z.ZodType, code: string) =>
  (bytes: Uint8Array): string =>
    parseMessage(schema, bytes).ok ? 'accepted' : code;

const formats: Record<string, { outcomes: string[]; judge(bytes: Uint8Array): string }> = {
  'oip-infer-request': {
    outcomes: ['accepted', 'infer-invalid'],
    judge: (bytes) => outcomeOf(parseInferRequest(bytes)),
  },
  golden: {
    outcomes: ['accepted', 'golden-malformed'],
    judge: (bytes) => outcomeOf(parseGolden(bytes, (file) => (file === 'absent.bin' ? null : twoFloats))),
  },
  profile: { outcomes: ['accepted', 'profile-malformed'], judge: (bytes) => outcomeOf(parseProfile(bytes)) },
  manifest: {
    outcomes: ['accepted', 'manifest-malformed'],
    judge: bySchema(manifestSchema, 'manifest-malformed'),
  },
  claim: { outcomes: ['accepted', 'claim-malformed'], judge: bySchema(claimFileSchema, 'claim-malformed') },
  rollout: {
    outcomes: ['accepted', 'rollout-file-invalid'],
    judge: bySchema(rolloutFileSchema, 'rollout-file-invalid'),
  },
  assignment: {
    outcomes: ['accepted', 'message-malformed'],
    judge: bySchema(assignmentSchema, 'message-malformed'),
  },
  report: { outcomes: ['accepted', 'message-malformed'], judge: bySchema(reportSchema, 'message-malformed') },
  'message-fetch': {
    outcomes: ['accepted', 'message-malformed'],
    judge: (bytes) => outcomeOf(parseMessage(fetchRequestSchema, bytes)),
  },
  'message-signed': {
    outcomes: ['accepted', 'message-malformed'],
    judge: (bytes) => outcomeOf(parseMessage(signedMessageSchema, bytes)),
  },
  'message-presence': {
    outcomes: ['accepted', 'message-malformed'],
    judge: (bytes) => outcomeOf(parseMessage(presenceSchema, bytes)),
  },
  'message-enrol-request': {
    outcomes: ['accepted', 'message-malformed'],
    judge: (bytes) => outcomeOf(parseMessage(enrolRequestSchema, bytes)),
  },
  'message-enrol-reply': {
    outcomes: ['accepted', 'message-malformed'],
    judge: (bytes) => outcomeOf(parseMessage(enrolReplySchema, bytes)),
  },
};

const folder = join(projectFolder, 'test', 'vectors');
const bytesOf = (vector: Vector): Uint8Array => {
  if (vector.base64 !== undefined) return new Uint8Array(Buffer.from(vector.base64, 'base64'));
  return new TextEncoder().encode(vector.text ?? JSON.stringify(vector.body));
};

test('each format has vectors, accepted and refused ones', () => {
  assert.deepEqual(
    readdirSync(folder).sort(),
    Object.keys(formats)
      .map((name) => `${name}.json`)
      .sort(),
  );
});

for (const [format, { outcomes, judge }] of Object.entries(formats)) {
  test(`vectors: ${format}`, () => {
    const { vectors } = readJson<{ vectors: Vector[] }>(join(folder, `${format}.json`));
    assert.deepEqual(
      new Set(vectors.map((vector) => vector.outcome)),
      new Set(outcomes),
      'each outcome occurs',
    );
    for (const vector of vectors) assert.equal(judge(bytesOf(vector)), vector.outcome, vector.name);
  });

  test(`JSON Schema accepts what the code accepts: ${format}`, () => {
    const text = jsonSchemaFiles().get(`${format}.schema.json`);
    assert.ok(text !== undefined);
    const schema = z.fromJSONSchema(JSON.parse(text));
    const { vectors } = readJson<{ vectors: Vector[] }>(join(folder, `${format}.json`));
    let compared = 0;
    for (const vector of vectors) {
      // Bare NaN and 64-bit integers have no place in the data model of JSON Schema.
      if (vector.outcome !== 'accepted' || /\bNaN,|\d{16}/.test(vector.text ?? '')) continue;
      const parsed = schema.safeParse(JSON.parse(new TextDecoder().decode(bytesOf(vector))));
      assert.ok(parsed.success, `${vector.name}: ${parsed.error?.message}`);
      compared++;
    }
    assert.ok(compared > 0);
  });
}
