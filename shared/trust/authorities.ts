// Why: the fleet's certificate authorities change while devices are out there; the region signs the list.
// Trusts: the `command` keys of the region root in force. Must never: say whether a certificate is good; that
// is TLS's work, this is only the list of who may issue one.

import { sha256Hex } from '../crypto/digests.ts';
import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import {
  type AuthoritiesStatement,
  authoritiesStatementSchema,
  type Envelope,
  encodeMessage,
  payloadTypes,
} from '../wire/messages.ts';
import type { RegionRoot } from './region.ts';
import { readSignedBody } from './signed-body.ts';

const pemBlock = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** The certificates (PEM, one each) in a text that holds several, in order, each spelled the same way. */
export function splitPem(text: string): string[] {
  return (text.match(pemBlock) ?? []).map((block) => {
    const base64 = block.replace(/-----[A-Z ]+-----/g, '').replace(/\s+/g, '');
    const lines = base64.match(/.{1,64}/g) ?? [];
    return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
  });
}

/** Digest of a list of authorities as assignments name it: over the certificates' own digests, in their order. */
export function authoritiesSha256(certificates: readonly string[]): string {
  const digests = certificates.flatMap(splitPem).map((pem) => {
    const base64 = pem.replace(/-----[A-Z ]+-----/g, '').replace(/\s+/g, '');
    return sha256Hex(Buffer.from(base64, 'base64'));
  });
  return sha256Hex(new TextEncoder().encode(digests.join('\n')));
}

export function signAuthorities(statement: AuthoritiesStatement, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.authorities, encodeMessage(statement), [signer]);
}

/**
 * The authorities that this region names. Refusals: `envelope-malformed`, `authorities-invalid` (another
 * region's, not signed by its `command` key, older than the list held, or no certificates).
 */
export function checkAuthorities(parts: {
  envelope: Envelope;
  regionRoot: RegionRoot;
  region: string;
  /** Of the list that is held, 0 where it came with the claim. */
  heldIssuedAtMs: number;
}): Result<AuthoritiesStatement> {
  const { envelope, regionRoot, region, heldIssuedAtMs } = parts;
  const { keys, threshold } = regionRoot.roles.command;
  const opened = openEnvelope(
    envelope,
    payloadTypes.authorities,
    keys.map((key) => key.publicKey),
    threshold,
    'authorities-invalid',
  );
  if (!opened.ok) return opened;
  const body = readSignedBody(authoritiesStatementSchema, opened.value, 'authorities-invalid');
  if (!body.ok) return body;
  const statement = body.value;
  if (statement.region !== region)
    return refuse('authorities-invalid', `the list of region ${statement.region}`);
  if (statement.issuedAtMs < heldIssuedAtMs) {
    return refuse('authorities-invalid', 'an older list than the one that is held');
  }
  if (statement.certificates.some((pem) => splitPem(pem).length !== 1)) {
    return refuse('authorities-invalid', 'an entry is not one certificate in PEM');
  }
  return ok(statement);
}

/**
 * The TLS server name by which a device says which authority it trusts, so that a broker in the middle of a
 * change of authorities shows each device a certificate that this device can check. It names no host: the
 * device checks the certificate against the host it dialled.
 */
export function authorityServerName(certificate: string): string {
  return `ca-${authoritiesSha256([certificate]).slice(0, 32)}.lepton.internal`;
}
