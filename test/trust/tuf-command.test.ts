// Why: `lepton-agent tuf` beyond the workflow: target files, names, slow and endless servers, exit codes.
// Trusts: the simulator. Must never: leave anything of a download that failed without noticing.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { download, downloadBytes } from '../../agent/cli/tuf/http.ts';
import { metadataUrl, quote, roleFileName, targetFileName, targetUrl } from '../../agent/cli/tuf/names.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { scene } from './tuf-driver.ts';
import { digest, serve, TufSimulator } from './tuf-simulator.ts';

describe('downloads', () => {
  it('store one flat file, and ask for nothing while it holds what is listed', async (t) => {
    const { repository, client } = await scene(t);
    repository.addTarget('targets', 'path/to/a/target file.txt', 'content');
    repository.publishAll();
    assert.equal(await client.download('path/to/a/target file.txt'), 0);
    const sha256 = digest('sha256', 'content');
    assert.equal(repository.requests.at(-1), `targets/path/to/a/${sha256}.target%20file.txt`);
    assert.deepEqual(readdirSync(client.targets), ['path%2Fto%2Fa%2Ftarget%20file.txt']);
    repository.requests = [];
    repository.artifacts.clear();
    const path = join(client.targets, 'path%2Fto%2Fa%2Ftarget%20file.txt');
    utimesSync(path, 1, 1);
    assert.equal(await client.download('path/to/a/target file.txt'), 0);
    assert.deepEqual(
      repository.requests.filter((one) => one.startsWith('targets')),
      [],
    );
    assert.equal(readFileSync(path).toString(), 'content');
  });

  it('never store substituted bytes, and leave the file before untouched', async (t) => {
    const { repository, client } = await scene(t);
    repository.addTarget('targets', 'one', 'first content');
    repository.addTarget('targets', 'two', 'content');
    repository.publishAll();
    assert.equal(await client.download('one'), 0);
    repository.addTarget('targets', 'one', 'newer content');
    repository.publishAll();
    for (const [bytes, code] of [
      ['newer contenT', 'blob-digest-mismatch'],
      ['newer conten', 'blob-size-mismatch'],
      ['newer content and more', 'blob-size-mismatch'],
      ['', 'blob-size-mismatch'],
    ] as const) {
      repository.artifacts.set('one', Buffer.from(bytes));
      repository.artifacts.set('two', Buffer.from(bytes));
      assert.equal(await client.download('one'), 1);
      assert.equal(client.code, code);
      assert.equal(await client.download('two'), 1);
      assert.deepEqual(client.downloads(), ['first content']);
    }
    repository.artifacts.clear();
    assert.equal(await client.download('one'), 1);
    assert.equal(client.code, 'target-unknown');
    repository.addTarget('targets', 'one', 'newer content');
    writeFileSync(join(client.targets, 'one%.partial'), 'of a run that was killed');
    assert.equal(await client.download('one'), 0);
    assert.deepEqual(client.downloads(), ['newer content'], 'one name, replaced');
    writeFileSync(join(client.targets, 'one'), 'newer kontent');
    assert.equal(await client.download('one'), 0);
    assert.deepEqual(client.downloads(), ['newer content'], 'what was changed on the disk is fetched again');
  });

  it('follow what changes, each file under its name', async (t) => {
    const { repository, client } = await scene(t, { kind: 'ed25519' });
    for (let round = 0; round < 3; round += 1) {
      repository.addTarget('targets', 'file', `modified ${round}`);
      repository.addTarget('targets', `new-${round}`, `new ${round}`);
      repository.publishAll();
      assert.equal(await client.download(['file', `new-${round}`]), 0);
      const expected = [
        `modified ${round}`,
        ...Array.from({ length: round + 1 }, (_, index) => `new ${index}`),
      ];
      assert.deepEqual(client.downloads().sort(), expected.sort());
    }
  });

  for (const [algorithms, succeeds] of [
    [['sha256'], true],
    [['sha512'], true],
    [['sha256', 'sha512'], true],
    [['sha512', 'md5'], true],
    [['md5'], false],
    [[], false],
  ] as const) {
    it(`${succeeds ? 'take' : 'refuse'} digests by ${algorithms.join(' and ') || 'nothing'}`, async (t) => {
      const { repository, client } = await scene(t);
      repository.addTarget('targets', 'file', 'content', [...algorithms]);
      repository.publishAll();
      assert.equal(await client.download('file'), succeeds ? 0 : 1);
      assert.deepEqual(client.downloads(), succeeds ? ['content'] : []);
      if (!succeeds) return;
      const name = algorithms.some((one) => one === 'sha256') ? 'sha256' : 'sha512';
      assert.equal(repository.requests.at(-1), `targets/${digest(name, 'content')}.file`);
    });
  }

  it('refuse bytes of which one of two listed digests is wrong', async (t) => {
    const { repository, client } = await scene(t);
    for (const name of ['sha256', 'sha512']) {
      repository.addTarget('targets', 'file', 'content', ['sha256', 'sha512']);
      const listed = repository.targetsOf('targets').targets['file'];
      if (listed) listed.hashes[name] = digest(name, 'other');
      repository.publishAll();
      assert.equal(await client.download('file'), 1);
      assert.equal(client.code, 'blob-digest-mismatch');
    }
  });

  it('read repositories without consistent snapshots', async (t) => {
    for (const absent of [false, true]) {
      const { repository, client } = await scene(t);
      repository.root.consistent_snapshot = false;
      repository.delegate('targets', { name: 'role', terminating: false, paths: ['a/*'], threshold: 1 });
      repository.addTarget('role', 'a/file', 'content');
      if (absent) Reflect.deleteProperty(repository.root, 'consistent_snapshot');
      repository.publish('root');
      repository.publishAll('role');
      repository.requests = [];
      assert.equal(await client.download('a/file'), 0, client.code);
      assert.deepEqual(repository.requests, [
        'metadata/2.root.json',
        'metadata/3.root.json',
        'metadata/timestamp.json',
        'metadata/snapshot.json',
        'metadata/targets.json',
        'metadata/role.json',
        'targets/a/file',
      ]);
    }
  });

  it('do not leave their folder or the repository’s, whatever a target is called', async (t) => {
    const { repository, client } = await scene(t, { kind: 'ed25519' });
    const names = [
      '../x',
      '..',
      '.',
      'a/../../x',
      './x',
      '/etc/x',
      'a//b',
      'a\\b',
      '%2e%2e/x',
      '~',
      'ä?#',
      'x'.repeat(500),
      '__proto__x',
    ];
    for (const name of names) repository.addTarget('targets', name, `of ${name}`);
    repository.publishAll();
    for (const name of names) {
      const isRefused = name.split('/').some((part) => part === '.' || part === '..');
      assert.equal(await client.download(name), isRefused ? 1 : 0, `${name} ${client.code}`);
      if (isRefused) assert.equal(client.code, 'target-unknown');
    }
    assert.ok(repository.requests.every((one) => /^(metadata|targets)\//.test(one)));
    assert.equal(readdirSync(client.targets).length, 8);
    assert.deepEqual(readdirSync(client.folder).sort(), ['initial_root.json', 'metadata', 'targets']);
  });
});

describe('names', () => {
  it('are quoted as Python does', () => {
    assert.equal(
      quote('aZ09_.-~ !*\'()/?#[]@&=+$,;:%"<>\\^`{|}'),
      'aZ09_.-~%20%21%2A%27%28%29%2F%3F%23%5B%5D%40%26%3D%2B%24%2C%3B%3A%25%22%3C%3E%5C%5E%60%7B%7C%7D',
    );
    assert.equal(quote('ü€\u{1f600}'), '%C3%BC%E2%82%AC%F0%9F%98%80');
  });

  it('of files are never another’s', () => {
    const roles = [
      'a',
      'A',
      'root ',
      'Root',
      'ROOT',
      'Timestamp',
      'x'.repeat(219),
      'x'.repeat(221),
      '%72oot',
      '..',
      '%role-x',
    ];
    const files = roles.map(roleFileName);
    assert.equal(new Set(files.map((name) => name.toLowerCase())).size, files.length - 1, 'a and A alone');
    for (const name of files)
      assert.ok(!/^(root|timestamp|snapshot|targets)\.json$/i.test(name) && name.length < 255);
    for (const name of ['', '.', '..', 'a/../b', 'x'.repeat(600)])
      assert.match(targetFileName(name), /^[^/]{3,240}$/);
  });

  it('stand under the base, with or without a slash at its end', () => {
    for (const base of ['http://h/a%5B1%5D/metadata/', 'http://h/a%5B1%5D/metadata'])
      assert.equal(
        metadataUrl(new URL(base), '1...%2F.json').href,
        'http://h/a%5B1%5D/metadata/1...%252F.json',
      );
    assert.equal(
      targetUrl(new URL('https://h/t?key=1'), 'a b/c', 'ff')?.href,
      'https://h/t/a%20b/ff.c?key=1',
    );
    assert.equal(targetUrl(new URL('https://h/t'), 'a/../c', null), null);
  });
});

describe('a server that', () => {
  const bounds = { bytesMax: 1_000, timeoutMs: 20_000 };
  const codes = { missing: 'metadata-missing', tooLarge: 'metadata-too-large' } as const;

  async function ask(
    t: { after(work: () => Promise<void>): void },
    answer: (response: ServerResponse) => void,
    timeoutMs: number,
  ): Promise<string> {
    const served = await serve(new TufSimulator('ed25519'), (_path, response) => {
      answer(response);
      return true;
    });
    t.after(served.close);
    const result = await downloadBytes(new URL(served.metadataUrl), { ...bounds, timeoutMs }, codes);
    return result.ok ? result.value.length.toString() : result.refusal.code;
  }

  const cases: [string, string, (response: ServerResponse) => void][] = [
    ['answers', '5', (response) => response.end('hello')],
    ['never answers', 'fetch-timeout', () => undefined],
    ['never ends its answer', 'fetch-timeout', (response) => void response.write('{')],
    [
      'sends a byte now and then',
      'fetch-timeout',
      (response) => {
        const timer = setInterval(() => response.write(' '), 20);
        response.on('close', () => clearInterval(timer));
      },
    ],
    [
      'sends without end',
      'metadata-too-large',
      (response) => {
        const more = (): void => {
          while (!response.closed && response.write(Buffer.alloc(64)));
          if (!response.closed) response.once('drain', more);
        };
        more();
      },
    ],
    ['sends exactly the limit', '1000', (response) => response.end(Buffer.alloc(1_000))],
    ['sends one byte more', 'metadata-too-large', (response) => response.end(Buffer.alloc(1_001))],
    ['has no such file', 'metadata-missing', (response) => response.writeHead(404).end('x'.repeat(5_000))],
    ['forbids', 'metadata-missing', (response) => response.writeHead(403).end()],
    ['is broken', 'repository-unreachable', (response) => response.writeHead(500).end('<html>')],
    [
      'answers with another success',
      'repository-unreachable',
      (response) => response.writeHead(206).end('part'),
    ],
    ['answers with nothing', 'repository-unreachable', (response) => response.writeHead(204).end()],
    [
      'redirects without end',
      'repository-unreachable',
      (response) => response.writeHead(302, { location: '/' }).end(),
    ],
    ['hangs up', 'repository-unreachable', (response) => void response.socket?.destroy()],
    [
      'hangs up in the middle',
      'repository-unreachable',
      (response) => {
        response.writeHead(200, { 'content-length': 100 });
        response.write('half', () => response.socket?.destroy());
      },
    ],
  ];
  for (const [what, expected, answer] of cases) {
    it(`${what}: ${expected}`, async (t) => {
      const timeoutMs = expected === 'fetch-timeout' ? 300 : bounds.timeoutMs;
      assert.equal(await ask(t, answer, timeoutMs), expected);
    });
  }

  it('is not there: repository-unreachable', async () => {
    const result = await downloadBytes(new URL('http://127.0.0.1:1/x'), bounds, codes);
    assert.equal(result.ok || result.refusal.code, 'repository-unreachable');
  });

  it('makes the sink fail: the fault comes through', async (t) => {
    const served = await serve(new TufSimulator('ed25519'));
    t.after(served.close);
    await assert.rejects(
      download(
        new URL('1.root.json', served.metadataUrl),
        { bytesMax: 10_000, timeoutMs: 1_000 },
        codes,
        async () => {
          throw new Error('disk');
        },
      ),
      /disk/,
    );
  });

  it('fails for a newer root is not taken for one that has none', async (t) => {
    for (const status of [500, 503, 429, 401]) {
      const { client } = await scene(t, {
        answer: (path, response) => {
          if (!path.endsWith('2.root.json')) return false;
          response.writeHead(status).end();
          return true;
        },
      });
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'repository-unreachable');
      assert.deepEqual(client.trusted(), { root: 1 });
    }
  });

  it('forbids the next root has none', async (t) => {
    const { client } = await scene(t, {
      answer: (path, response) => {
        if (!path.endsWith('2.root.json')) return false;
        response.writeHead(403).end();
        return true;
      },
    });
    assert.equal(await client.refresh(), 0);
  });

  it('serves files beyond the limit of their role is refused', async (t) => {
    const sizes: [string, number][] = [
      ['2.root.json', limits.rootBytesMax],
      ['timestamp.json', limits.timestampBytesMax],
      ['1.snapshot.json', limits.snapshotBytesMax],
    ];
    for (const [name, bytes] of sizes) {
      const { client } = await scene(t, {
        answer: (path, response) => {
          if (path !== `metadata/${name}`) return false;
          response.end(Buffer.alloc(bytes + 1, 0x20));
          return true;
        },
      });
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-too-large');
    }
  });
});

describe('the command line', () => {
  it('takes flags before and after the action, and says what is wrong with 1 or 2', async (t) => {
    const { repository, client } = await scene(t, { asProcess: true });
    repository.addTarget('targets', 'a/file', 'content');
    repository.publishAll();
    const root = join(client.folder, 'initial_root.json');
    const { metadataUrl: url, targetsUrl } = client.served;
    const folder = ['--metadata-dir', client.metadata];
    const where = [...folder, '--metadata-url', url];
    const what = ['--target-name', 'a/file', '--target-base-url', targetsUrl, '--target-dir', client.targets];
    const lines: [string[], number, string][] = [
      [['init', root, ...folder], 0, ''],
      [['refresh', ...where], 0, ''],
      [[...where, 'refresh'], 0, ''],
      [[...where, ...what, 'download'], 0, ''],
      [['download', ...where, ...what, '--json'], 0, ''],
      [[...where, ...what, '--target-name', 'nothing', 'download'], 1, 'target-unknown'],
      [[...folder, 'init', join(client.folder, 'absent.json')], 1, 'disk-io'],
      [
        ['--metadata-dir', join(client.folder, 'absent'), '--metadata-url', url, 'refresh'],
        1,
        'metadata-missing',
      ],
      [[...folder, '--metadata-url', 'http://127.0.0.1:1/', 'refresh'], 1, 'repository-unreachable'],
      [[...folder, 'init'], 2, 'config-invalid'],
      [['init', root], 2, 'config-invalid'],
      [[...folder, 'refresh'], 2, 'config-invalid'],
      [[...folder, '--metadata-url', 'file:///etc', 'refresh'], 2, 'config-invalid'],
      [[...folder, '--metadata-url', 'nonsense', 'refresh'], 2, 'config-invalid'],
      [[...where, 'refresh', 'more'], 2, 'config-invalid'],
      [[...where, 'download'], 2, 'config-invalid'],
      [[...where, 'update'], 2, 'config-invalid'],
      [[], 2, 'config-invalid'],
      [['--days', '3', ...where, 'refresh'], 2, 'config-invalid'],
    ];
    for (const [args, exit, code] of lines) {
      assert.equal(await client.command(['tuf', ...args]), exit, `${args.join(' ')}: ${client.code}`);
      assert.equal(client.code, code, args.join(' '));
    }
    assert.deepEqual(client.downloads(), ['content']);
    assert.ok(readdirSync(client.metadata).filter((name) => name.endsWith('.json')).length === 4);
    assert.ok(readdirSync(client.metadata).every((name) => !name.endsWith('.partial')));
  });
});
