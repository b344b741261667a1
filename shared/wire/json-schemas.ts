// Why: JSON Schemas of every file and message format, for people and tools that do not read TypeScript.
// Trusts: the zod schemas, of which these are a projection. Must never: be edited by hand; the files
// in schemas/ are written by scripts/schemas.mjs and a test compares them.

import { z } from 'zod';
import { auditLineSchema } from './audit.ts';
import { cellStatementSchema } from './cells.ts';
import { claimFileSchema } from './claim.ts';
import { moveFileSchema, moveOrderSchema } from './device-move.ts';
import { energyStatsSchema } from './energy.ts';
import { keyFileSchema, publicKeyFileSchema } from './key-file.ts';
import { keyBundleSchema, keyPlanSchema } from './key-plan.ts';
import { manifestSchema } from './manifest.ts';
import { maskingFileSchema } from './masking.ts';
import {
  assignmentSchema,
  enrolReplySchema,
  enrolRequestSchema,
  envelopeSchema,
  fetchRequestSchema,
  presenceSchema,
  reportSchema,
  signedMessageSchema,
} from './messages.ts';
import {
  inferRequestSchema,
  inferResponseSchema,
  modelMetadataSchema,
  oipErrorSchema,
  oipTensorSchema,
  repositoryIndexSchema,
  serverMetadataSchema,
} from './oip.ts';
import { profileSchema } from './profile.ts';
import { labelLineSchema, predictionRecordSchema } from './quality.ts';
import { policyBundleSchema, regionPolicySchema } from './region-policy.ts';
import { residencyReportSchema } from './residency-report.ts';
import { rolloutFileSchema } from './rollout-file.ts';
import { sampleRulesFileSchema } from './sample-rules.ts';
import { captureRecordSchema, sampleRowSchema } from './samples.ts';
import { batchAnswerSchema, batchHeadSchema, batchStatementSchema, storedRecordSchema } from './telemetry.ts';

/** In a golden file the data may stand in a file beside it: `parameters: {binary_data_file}`. */
const goldenTensorSchema = oipTensorSchema.partial({ data: true });
export const goldenFileSchema = z
  .array(
    z.strictObject({
      request: inferRequestSchema.extend({ inputs: z.array(goldenTensorSchema) }),
      response: inferResponseSchema
        .partial({ model_name: true })
        .extend({ outputs: z.array(goldenTensorSchema).min(1) }),
      rtol: z.number().nonnegative().default(1e-3),
      atol: z.number().nonnegative().default(1e-3),
      sequence: z.string().optional(),
    }),
  )
  .min(1);

/** What each file says it is; the schema itself follows. */
const described: Record<string, { title: string; schema: z.ZodType }> = {
  'audit-line': { title: 'One line of an export of the audit record', schema: auditLineSchema },
  manifest: { title: 'Release manifest (manifest.json)', schema: manifestSchema },
  golden: { title: 'Golden cases', schema: goldenFileSchema },
  profile: { title: 'Reference profile', schema: profileSchema },
  claim: { title: 'Enrolment claim file; a secret', schema: claimFileSchema },
  'device-move': { title: 'Order to move devices, carried from signer to signer', schema: moveFileSchema },
  'device-move-order': { title: 'What the catalogue’s root signs to move devices', schema: moveOrderSchema },
  'key-file': { title: 'Private key, sealed under a passphrase; a secret', schema: keyFileSchema },
  'public-key-file': { title: 'Public key with its holder (FILE.pub)', schema: publicKeyFileSchema },
  'key-plan': { title: 'What is in force, for a ceremony (lepton keys plan)', schema: keyPlanSchema },
  'key-bundle': { title: 'What is to follow, on its way from holder to holder', schema: keyBundleSchema },
  masking: { title: 'Masking file', schema: maskingFileSchema },
  'region-policy': { title: 'Policy of a region (lepton policy put)', schema: regionPolicySchema },
  'policy-bundle': { title: 'Policy on its way from holder to holder', schema: policyBundleSchema },
  'residency-report': { title: 'Residency report', schema: residencyReportSchema },
  'sample-rules': { title: 'Sample rules file', schema: sampleRulesFileSchema },
  rollout: { title: 'Rollout file', schema: rolloutFileSchema },
  envelope: { title: 'DSSE envelope', schema: envelopeSchema },
  assignment: {
    title: 'Assignment (payload of an envelope, signed by the director)',
    schema: assignmentSchema,
  },
  report: { title: 'Report (payload of an envelope, signed by the device)', schema: reportSchema },
  'telemetry-head': { title: 'Head of a sealed batch of telemetry', schema: batchHeadSchema },
  'telemetry-statement': {
    title: 'Statement of a sealed batch (payload of an envelope, signed by the device)',
    schema: batchStatementSchema,
  },
  'telemetry-answer': {
    title: 'Answer to a batch (payload of an envelope, signed by the region)',
    schema: batchAnswerSchema,
  },
  cell: {
    title:
      'Cell: what a region tells of one release or model on one day (payload of an envelope, signed by the region)',
    schema: cellStatementSchema,
  },
  'prediction-record': {
    title: 'Data of a record of class app or sample that is joined with a label: an id, and a prediction',
    schema: predictionRecordSchema,
  },
  'energy-record': {
    title: 'Data of a record of class stats: joules of one release in one window',
    schema: energyStatsSchema,
  },
  'sample-record': {
    title: 'Data of a record of class sample: a request that was kept for review',
    schema: captureRecordSchema,
  },
  'sample-row': { title: 'One line of a dataset (lepton samples export, NDJSON)', schema: sampleRowSchema },
  'label-line': { title: 'One line of a label file (lepton labels import)', schema: labelLineSchema },
  'telemetry-record': { title: 'One line of telemetry query --json', schema: storedRecordSchema },
  'message-signed': { title: 'Body of desired and reported', schema: signedMessageSchema },
  'message-presence': { title: 'Body of presence', schema: presenceSchema },
  'message-fetch': { title: 'Body of fetch', schema: fetchRequestSchema },
  'message-enrol-request': { title: 'Body of enroll/…/request', schema: enrolRequestSchema },
  'message-enrol-reply': { title: 'Body of enroll/…/reply', schema: enrolReplySchema },
  'oip-infer-request': { title: 'Open Inference Protocol V2 inference request', schema: inferRequestSchema },
  'oip-infer-response': {
    title: 'Open Inference Protocol V2 inference response',
    schema: inferResponseSchema,
  },
  'oip-model-metadata': { title: 'Open Inference Protocol V2 model metadata', schema: modelMetadataSchema },
  'oip-server-metadata': {
    title: 'Open Inference Protocol V2 server metadata',
    schema: serverMetadataSchema,
  },
  'oip-repository-index': { title: 'Model repository index', schema: repositoryIndexSchema },
  'oip-error': { title: 'Open Inference Protocol V2 error', schema: oipErrorSchema },
};

/**
 * File names and contents of `schemas/`. They describe what a writer has to give: what has a default
 * may be left out. Rules between fields (a count for each bin, say) are in the code alone.
 */
export function jsonSchemaFiles(): Map<string, string> {
  const files = new Map<string, string>();
  for (const [name, { title, schema }] of Object.entries(described)) {
    const { $schema, ...rest } = z.toJSONSchema(schema, { io: 'input', target: 'draft-2020-12' });
    files.set(`${name}.schema.json`, `${JSON.stringify({ $schema, title, ...rest }, null, 2)}\n`);
  }
  return files;
}
