// Why: the sole home of MQTT topic strings, and of the rules who may use which (DESIGN 4).
// Trusts: the caller's region name and device id were validated. Must never: allow a wildcard to a device.

export const topicPrefix = 'lepton/1';

/** Channels of a device's own `d/<device>/…`, by who may publish on them. */
export const devicePublishes = [
  'reported',
  'presence',
  'fetch',
  'telemetry',
  'result',
  'time',
  'renew',
  'carried',
] as const;
export const deviceSubscribes = [
  'desired',
  'bytes',
  'telemetry/ack',
  'command',
  'time/reply',
  'renew/reply',
  'carried/ack',
] as const;
export type DevicePublishChannel = (typeof devicePublishes)[number];
export type DeviceSubscribeChannel = (typeof deviceSubscribes)[number];
export type DeviceChannel = DevicePublishChannel | DeviceSubscribeChannel;

export function tufTimestampTopic(region: string): string {
  return `${topicPrefix}/${region}/tuf/timestamp`;
}

export function deviceTopic(region: string, deviceId: string, channel: DeviceChannel): string {
  return `${topicPrefix}/${region}/d/${deviceId}/${channel}`;
}

/** Filter by which the registry hears one channel of every device. */
export function everyDeviceFilter(region: string, channel: DevicePublishChannel): string {
  return `${topicPrefix}/${region}/d/+/${channel}`;
}

/** A filter that several processes hear together, each message in one of them (MQTT 5 §4.8.2, brokers of 3.1.1 too). */
export function sharedFilter(group: string, filter: string): string {
  return `$share/${group}/${filter}`;
}

/** The filter by which topics are compared: a shared one without its group. */
export function plainFilter(filter: string): string {
  return filter.startsWith('$share/') ? filter.split('/').slice(2).join('/') : filter;
}

export function enrolRequestTopic(region: string, claimId: string, attempt: string): string {
  return `${topicPrefix}/${region}/enroll/${claimId}/${attempt}/request`;
}

export function enrolReplyTopic(region: string, claimId: string, attempt: string): string {
  return `${topicPrefix}/${region}/enroll/${claimId}/${attempt}/reply`;
}

export function everyEnrolRequestFilter(region: string): string {
  return `${topicPrefix}/${region}/enroll/+/+/request`;
}

/** Client id of an enrolling device; its certificate names the claim. */
export function enrolClientId(claimId: string, attempt: string): string {
  return `${claimId}.${attempt}`;
}

export type ParsedTopic =
  | { kind: 'tuf-timestamp'; region: string }
  | { kind: 'device'; region: string; deviceId: string; channel: DeviceChannel }
  | { kind: 'enrol'; region: string; claimId: string; attempt: string; direction: 'request' | 'reply' };

const channels: ReadonlySet<string> = new Set([...devicePublishes, ...deviceSubscribes]);

/** The topic's meaning, or null where it is none of ours. */
export function parseTopic(topic: string): ParsedTopic | null {
  const parts = topic.split('/');
  if (parts[0] !== 'lepton' || parts[1] !== '1') return null;
  const region = parts[2] ?? '';
  if (parts[3] === 'tuf' && parts[4] === 'timestamp' && parts.length === 5)
    return { kind: 'tuf-timestamp', region };
  if (parts[3] === 'd') {
    const channel = parts.slice(5).join('/');
    if (!channels.has(channel)) return null;
    return { kind: 'device', region, deviceId: parts[4] ?? '', channel: channel as DeviceChannel };
  }
  const direction = parts[6];
  if (parts[3] === 'enroll' && parts.length === 7 && (direction === 'request' || direction === 'reply')) {
    return { kind: 'enrol', region, claimId: parts[4] ?? '', attempt: parts[5] ?? '', direction };
  }
  return null;
}

/** Who a connection is, decided from its certificate alone. */
export type BusIdentity =
  /** `expired`: its certificate's dates are over, nothing else is wrong with it. */
  | { kind: 'device'; deviceId: string; expired?: boolean }
  | { kind: 'claim'; claimId: string; attempt: string };

/**
 * What a device with an expired certificate may use: a new certificate, and signed time, without which a
 * device whose clock is wrong could not ask for one (DESIGN 3).
 */
const expiredPublishes: readonly DevicePublishChannel[] = ['renew', 'time'];
const expiredSubscribes: readonly DeviceSubscribeChannel[] = ['renew/reply', 'time/reply'];

/** Whether this identity may publish there. Everything that is not named is denied. */
export function mayPublish(identity: BusIdentity, region: string, topic: string, retain: boolean): boolean {
  const parsed = parseTopic(topic);
  if (parsed === null || parsed.region !== region) return false;
  if (identity.kind === 'claim') {
    return (
      parsed.kind === 'enrol' &&
      parsed.direction === 'request' &&
      parsed.claimId === identity.claimId &&
      parsed.attempt === identity.attempt &&
      !retain
    );
  }
  if (parsed.kind !== 'device' || parsed.deviceId !== identity.deviceId) return false;
  const publishes: readonly string[] = identity.expired === true ? expiredPublishes : devicePublishes;
  if (!publishes.includes(parsed.channel)) return false;
  return !retain || parsed.channel === 'presence';
}

/** Whether this identity may subscribe to that filter. Wildcards are never allowed. */
export function maySubscribe(identity: BusIdentity, region: string, filter: string): boolean {
  if (/[+#]/.test(filter) || filter.startsWith('$')) return false;
  const parsed = parseTopic(filter);
  if (parsed === null || parsed.region !== region) return false;
  if (identity.kind === 'claim') {
    return (
      parsed.kind === 'enrol' &&
      parsed.direction === 'reply' &&
      parsed.claimId === identity.claimId &&
      parsed.attempt === identity.attempt
    );
  }
  if (parsed.kind === 'tuf-timestamp') return identity.expired !== true;
  const subscribes: readonly string[] = identity.expired === true ? expiredSubscribes : deviceSubscribes;
  return (
    parsed.kind === 'device' && parsed.deviceId === identity.deviceId && subscribes.includes(parsed.channel)
  );
}

/** Whether a topic falls under a filter with `+` and a final `#` (MQTT 3.1.1 §4.7). */
export function filterMatches(filter: string, topic: string): boolean {
  if (filter === topic) return true;
  const wanted = filter.split('/');
  const parts = topic.split('/');
  // MQTT-4.7.2-1: a filter that begins with a wildcard does not see topics that begin with `$`.
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false;
  for (const [index, part] of wanted.entries()) {
    if (part === '#') return true;
    if (index >= parts.length || (part !== '+' && part !== parts[index])) return false;
  }
  return wanted.length === parts.length;
}

/** The name in the client certificate of a registry; no device and no claim can have it. */
export const registryName = 'registry';

/**
 * Access rules for an external mosquitto broker with `use_identity_as_username true`. `shutOut`: devices that may use
 * nothing, also over a connection that they had before. A claim's certificate names the claim.
 */
export function mosquittoRules(region: string, shutOut: readonly string[] = []): string {
  const lines = [`user ${registryName}`, `topic readwrite ${topicPrefix}/${region}/#`, ''];
  for (const deviceId of shutOut) lines.push(`user ${deviceId}`, `topic deny ${topicPrefix}/#`, '');
  lines.push(`# Lepton Fleet, region ${region}: a device may use its own topics only`);
  for (const channel of devicePublishes) lines.push(`pattern write ${topicPrefix}/${region}/d/%u/${channel}`);
  for (const channel of deviceSubscribes) lines.push(`pattern read ${topicPrefix}/${region}/d/%u/${channel}`);
  lines.push(
    `pattern read ${tufTimestampTopic(region)}`,
    '# a claim its own, on which a device enrols',
    `pattern write ${enrolRequestTopic(region, '%u', '+')}`,
    `pattern read ${enrolReplyTopic(region, '%u', '+')}`,
  );
  return `${lines.join('\n')}\n`;
}
