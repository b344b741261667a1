// Why: makes and reads the X.509 certificates of a fleet, Ed25519 throughout (DESIGN 3).
// Trusts: the caller's seeds, names and dates. Must never: accept a certificate request whose key did not
// sign it, nor be loaded by the agent outside enrolment (it costs memory): import it lazily there.

// First: the library's decorators need it while they load.
import './reflect-metadata.ts';

import { randomBytes, type webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { publicKeyOf } from '../crypto/ed25519.ts';
import { deviceIdOf, pkcs8PemFromSeed, publicKeyFromSpki, spkiFromPublicKey } from '../crypto/spki.ts';
import { FleetError, invariant } from '../kernel/errors.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { registryName } from '../wire/topics.ts';
import { atOnceCrypto } from './at-once-crypto.ts';

x509.cryptoProvider.set(atOnceCrypto);

const algorithm = { name: 'Ed25519' } as const;

/** The certificate authority that signs: its certificate (PEM) and its seed (32 bytes). */
export interface CertificateAuthority {
  certificatePem: string;
  seed: Uint8Array;
}

export interface Validity {
  notBeforeMs: number;
  notAfterMs: number;
}

function derOf(pem: string): ArrayBuffer {
  return x509.PemConverter.decodeFirst(pem);
}

async function signingKey(seed: Uint8Array): Promise<webcrypto.CryptoKey> {
  return atOnceCrypto.subtle.importKey('pkcs8', derOf(pkcs8PemFromSeed(seed)), algorithm, false, ['sign']);
}

async function verifyingKey(publicKey: Uint8Array): Promise<webcrypto.CryptoKey> {
  return atOnceCrypto.subtle.importKey(
    'spki',
    new Uint8Array(spkiFromPublicKey(publicKey)),
    algorithm,
    true,
    ['verify'],
  );
}

function dates(validity: Validity): { notBefore: Date; notAfter: Date } {
  invariant(validity.notAfterMs > validity.notBeforeMs, 'a certificate that ends before it begins');
  // X.509 knows whole seconds; the start is rounded down and the end up, so nothing becomes shorter.
  return {
    notBefore: new Date(Math.floor(validity.notBeforeMs / 1000) * 1000),
    notAfter: new Date(Math.ceil(validity.notAfterMs / 1000) * 1000),
  };
}

/** Serial number, RFC 5280 §4.1.2.2: 16 bytes, positive. From the caller's entropy, else from the system's. */
export type Serial = Uint8Array;

function serialOf(params: { serial?: Serial }): string {
  const serial = Uint8Array.from(params.serial ?? randomBytes(16));
  invariant(serial.length === 16, 'a serial number has 16 bytes');
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  return Buffer.from(serial).toString('hex');
}

/** A self-signed authority that may sign end certificates only. Returns its certificate, PEM. */
export async function makeCertificateAuthority(
  params: { seed: Uint8Array; name: string; serial?: Serial } & Validity,
): Promise<string> {
  const publicKey = await verifyingKey(publicKeyOf(params.seed));
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialOf(params),
    name: [{ CN: [params.name] }],
    ...dates(params),
    signingAlgorithm: algorithm,
    keys: { publicKey, privateKey: await signingKey(params.seed) },
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
  return `${certificate.toString('pem')}\n`;
}

/**
 * The certificate of a region's door, signed by its own key: who trusts the key needs nobody else. Both ends of a line
 * between regions show one. PEM.
 */
export async function makeRegionCertificate(
  params: { seed: Uint8Array; region: string; serial?: Serial } & Validity,
): Promise<string> {
  const publicKey = await verifyingKey(publicKeyOf(params.seed));
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialOf(params),
    name: [{ CN: [`region ${params.region}`] }],
    ...dates(params),
    signingAlgorithm: algorithm,
    keys: { publicKey, privateKey: await signingKey(params.seed) },
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
    ],
  });
  return `${certificate.toString('pem')}\n`;
}

interface EndCertificate extends Validity {
  ca: CertificateAuthority;
  commonName: string;
  publicKey: Uint8Array;
  usage: 'server' | 'client';
  hosts: readonly string[];
  serial?: Serial;
}

async function issue(params: EndCertificate): Promise<string> {
  const authority = new x509.X509Certificate(params.ca.certificatePem);
  const authorityKey = publicKeyFromSpki(new Uint8Array(authority.publicKey.rawData));
  invariant(
    authorityKey.ok && Buffer.compare(authorityKey.value, publicKeyOf(params.ca.seed)) === 0,
    'the seed is not that of the authority’s certificate',
  );
  const publicKey = await verifyingKey(params.publicKey);
  const names = params.hosts.map((host) => ({
    type: isIpAddress(host) ? ('ip' as const) : ('dns' as const),
    value: host,
  }));
  const usage =
    params.usage === 'server' ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialOf(params),
    subject: [{ CN: [params.commonName] }],
    issuer: authority.subjectName,
    ...dates(params),
    signingAlgorithm: algorithm,
    publicKey,
    signingKey: await signingKey(params.ca.seed),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([usage]),
      await x509.AuthorityKeyIdentifierExtension.create(authority.publicKey),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
    ],
  });
  return `${certificate.toString('pem')}\n`;
}

function isIpAddress(host: string): boolean {
  return host.includes(':') || /^\d{1,3}(\.\d{1,3}){3}$/.test(host);
}

/** Certificate of the broker or the HTTP server. `hosts` are the DNS names and IP addresses it is reached by. */
export async function issueServerCertificate(
  params: {
    ca: CertificateAuthority;
    seed: Uint8Array;
    hosts: readonly string[];
    serial?: Serial;
  } & Validity,
): Promise<string> {
  return issueBrokerCertificate({ ...params, publicKey: publicKeyOf(params.seed) });
}

/** Server certificate of a broker that made its own key: `publicKey` is all that is known of it. */
export async function issueBrokerCertificate(
  params: {
    ca: CertificateAuthority;
    publicKey: Uint8Array;
    hosts: readonly string[];
    serial?: Serial;
  } & Validity,
): Promise<string> {
  const [first] = params.hosts;
  if (first === undefined)
    throw new FleetError('config-invalid', 'a server certificate needs at least one host');
  // A common name is at most 64 characters (RFC 5280 ub-common-name); the hosts are what clients check.
  return issue({ ...params, commonName: first.slice(0, 64), usage: 'server' });
}

/** Client certificate with which a registry connects to a broker of another maker. */
export async function issueRegistryCertificate(
  params: { ca: CertificateAuthority; publicKey: Uint8Array; serial?: Serial } & Validity,
): Promise<string> {
  return issue({ ...params, commonName: registryName, usage: 'client', hosts: [] });
}

/**
 * Short-lived client certificate with which a device without an identity may enrol. CN is the claim's id, as it stands
 * in the claim's topics: brokers of other makers can compare names, not take them apart.
 */
export async function issueClaimCertificate(
  params: { ca: CertificateAuthority; claimId: string; publicKey: Uint8Array; serial?: Serial } & Validity,
): Promise<string> {
  return issue({ ...params, commonName: params.claimId, usage: 'client', hosts: [] });
}

/** A device's client certificate: CN = device id, which must be the one of this public key. */
export async function issueDeviceCertificate(
  params: { ca: CertificateAuthority; deviceId: string; publicKey: Uint8Array; serial?: Serial } & Validity,
): Promise<string> {
  invariant(deviceIdOf(params.publicKey) === params.deviceId, 'the device id is not that of the public key');
  return issue({ ...params, commonName: params.deviceId, usage: 'client', hosts: [] });
}

/** A PKCS #10 certificate request (PEM) for the device key of this seed, signed by it. */
export async function makeDeviceRequest(seed: Uint8Array): Promise<string> {
  const raw = publicKeyOf(seed);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [deviceIdOf(raw)] }],
    signingAlgorithm: algorithm,
    keys: { publicKey: await verifyingKey(raw), privateKey: await signingKey(seed) },
  });
  return `${request.toString('pem')}\n`;
}

function signatureName(request: x509.Pkcs10CertificateRequest): string {
  // Declared with its hash only; the library always sets the name too.
  const found: object = request.signatureAlgorithm;
  return 'name' in found ? String(found.name) : '';
}

/**
 * The Ed25519 key (32 bytes) that a certificate request asks for, and the device id that follows from it.
 * Refusal: `enrolment-request-invalid`, where it is malformed, of another algorithm, of a weak key, or not
 * signed by its own key (so nobody can have another device's key certified).
 */
export async function readDeviceRequest(
  csrPem: string,
): Promise<Result<{ publicKey: Uint8Array; deviceId: string }>> {
  try {
    const request = new x509.Pkcs10CertificateRequest(csrPem);
    // Also refuses keys of small order, whose signatures fit messages that nobody signed.
    const key = publicKeyFromSpki(new Uint8Array(request.publicKey.rawData));
    if (!key.ok) return refuse('enrolment-request-invalid', key.refusal.detail);
    if (signatureName(request) !== algorithm.name) {
      return refuse('enrolment-request-invalid', 'the request is not signed with Ed25519');
    }
    if (!(await request.verify())) {
      return refuse('enrolment-request-invalid', 'the request is not signed by the key it names');
    }
    return ok({ publicKey: key.value, deviceId: deviceIdOf(key.value) });
  } catch (error) {
    // The parser throws plain errors for whatever is malformed; there is nothing else in here to throw.
    return refuse('enrolment-request-invalid', error instanceof Error ? error.message : 'malformed');
  }
}
