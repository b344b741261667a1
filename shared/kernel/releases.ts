// Why: what names a release and its files, used from the wire up to the update machine.
// Trusts: nothing; every name is checked here once. Must never: let a path leave its folder.

/** Namespaces, model names, rollout names, regions, users. */
export const namePattern = /^[a-z0-9][a-z0-9-]{0,62}$/;
/** Semantic Versioning 2.0.0 with bounded length; build metadata is not allowed, it does not order. */
export const versionPattern =
  /^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z-]{1,32}(\.[0-9A-Za-z-]{1,32}){0,7})?$/;
export const sha256Pattern = /^[0-9a-f]{64}$/;
/** First 32 hex digits of the SHA-256 of a device's public key (SPKI). */
export const deviceIdPattern = /^[0-9a-f]{32}$/;
/** Relative path inside a release: no empty part, no `.`/`..`, no backslash, no leading slash. */
export const releasePathPattern =
  /^(?!\.{1,2}(\/|$))[A-Za-z0-9_.-][A-Za-z0-9_. -]{0,99}(\/(?!\.{1,2}(\/|$))[A-Za-z0-9_.-][A-Za-z0-9_. -]{0,99}){0,7}$/;

export const fileRoles = ['model', 'external-data', 'golden', 'golden-data', 'profile', 'card'] as const;
export type FileRole = (typeof fileRoles)[number];

export interface ReleaseFile {
  path: string;
  role: FileRole;
  /** Hex. */
  sha256: string;
  bytes: number;
}

export interface ReleaseName {
  namespace: string;
  name: string;
  version: string;
}

/** `NS/NAME@VERSION`, or null where it is not one. */
export function parseReleaseId(text: string): ReleaseName | null {
  const match = /^([^/@]+)\/([^/@]+)@([^/@]+)$/.exec(text);
  if (!match) return null;
  const [, namespace = '', name = '', version = ''] = match;
  if (!namePattern.test(namespace) || !namePattern.test(name) || !versionPattern.test(version)) return null;
  return { namespace, name, version };
}

export function formatReleaseId(release: ReleaseName): string {
  return `${release.namespace}/${release.name}@${release.version}`;
}

/** `NS/NAME` of a release id that was checked. */
export const modelOfRelease = (releaseId: string): string => releaseId.slice(0, releaseId.lastIndexOf('@'));

/** `NS/NAME`, or null where it is not one. */
export function parseModelId(text: string): { namespace: string; name: string } | null {
  const [namespace = '', name = '', ...rest] = text.split('/');
  if (rest.length > 0 || !namePattern.test(namespace) || !namePattern.test(name)) return null;
  return { namespace, name };
}

/** TUF target path of a release's manifest. */
export function targetPath(release: ReleaseName): string {
  return `${release.namespace}/${release.name}/${release.version}`;
}
