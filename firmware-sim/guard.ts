// Why: code inside the simulated world must not reach the real one by a side door: no clock, timer, chance, disk, socket,
// process or thread of this machine. Trusts: Node's own parts not to use the functions it replaces.
// Must never: stay on after the run, nor shut what computes and reads nothing.

import { syncBuiltinESMExports } from 'node:module';
import { openStore } from '../shared/host/sqlite.ts';
import { FleetError } from '../shared/kernel/errors.ts';

interface Door {
  holder: object;
  name: string;
}

const globals: Door[] = [
  ...['setTimeout', 'setInterval', 'setImmediate', 'fetch', 'WebSocket'].map((name) => ({
    holder: globalThis,
    name,
  })),
  { holder: Reflect.get(globalThis, 'Date') as object, name: 'now' },
  { holder: Reflect.get(globalThis, 'performance') as object, name: 'now' },
  { holder: Math, name: 'random' },
  { holder: process, name: 'hrtime' },
  { holder: process, name: 'uptime' },
];

/** Functions of Node's modules that reach the machine; of `fs` all of them. */
const ofModules: Record<string, readonly string[] | 'all'> = {
  fs: 'all',
  'fs/promises': 'all',
  net: ['connect', 'createConnection', 'createServer'],
  tls: ['connect', 'createServer'],
  http: ['request', 'get', 'createServer'],
  https: ['request', 'get', 'createServer'],
  http2: ['connect', 'createServer', 'createSecureServer'],
  dgram: ['createSocket'],
  dns: ['lookup', 'resolve'],
  child_process: ['spawn', 'exec', 'execFile', 'fork', 'spawnSync', 'execSync', 'execFileSync'],
  worker_threads: ['Worker'],
  timers: ['setTimeout', 'setInterval', 'setImmediate'],
  'timers/promises': ['setTimeout', 'setInterval', 'setImmediate'],
  crypto: ['randomBytes', 'randomFill', 'randomFillSync', 'randomInt', 'randomUUID', 'generateKeyPair'],
  zlib: ['deflateRaw', 'inflateRaw', 'gzip', 'gunzip', 'deflate', 'inflate'],
};

function doorsOf(id: string, names: readonly string[] | 'all'): Door[] {
  const holder: object | undefined = process.getBuiltinModule(id);
  if (holder === undefined) return [];
  const all = Object.keys(holder).filter((name) => typeof Reflect.get(holder, name) === 'function');
  const chosen = names === 'all' ? all.filter((name) => !/^[A-Z_]/.test(name)) : names;
  return chosen.filter((name) => all.includes(name)).map((name) => ({ holder, name }));
}

const doors: readonly Door[] = [
  ...globals,
  ...Object.entries(ofModules).flatMap(([id, names]) => doorsOf(id, names)),
];

/**
 * `new Date()` without a time gives none: the X.509 library fills such defaults in before it is told the dates, and
 * whoever used one would be seen by its NaN.
 */
function dateWithoutClock(real: DateConstructor): DateConstructor {
  return new Proxy(real, {
    construct: (target, given: number[]) =>
      Reflect.construct(target, given.length === 0 ? [Number.NaN] : given) as Date,
    apply: shutDoor('Date'),
  });
}

const shutDoor = (name: string) => (): never => {
  throw new FleetError('internal', `${name} was used inside the simulated world`);
};

let warm = false;
/** What is loaded at its first use is loaded before the doors are shut. */
async function warmUp(): Promise<void> {
  if (warm) return;
  warm = true;
  await (await openStore(':memory:', { synchronous: 'FULL' })).close();
}

/** Runs `work` with the real world shut: using it throws `internal`. */
export async function guarded<T>(work: () => Promise<T>): Promise<T> {
  await warmUp();
  const before = doors.map(({ holder, name }) => Object.getOwnPropertyDescriptor(holder, name));
  const date = globalThis.Date;
  for (const { holder, name } of doors) {
    Object.defineProperty(holder, name, { value: shutDoor(name), configurable: true, writable: true });
  }
  globalThis.Date = dateWithoutClock(date);
  syncBuiltinESMExports();
  try {
    return await work();
  } finally {
    globalThis.Date = date;
    for (const [index, { holder, name }] of doors.entries()) {
      const descriptor = before[index];
      if (descriptor === undefined) Reflect.deleteProperty(holder, name);
      else Object.defineProperty(holder, name, descriptor);
    }
    syncBuiltinESMExports();
  }
}
