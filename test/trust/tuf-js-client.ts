// Why: tuf-js 5.0.1 on the same files as our client, with its own folder between two runs.
// Trusts: nothing; its verdicts are compared. Must never: use the network.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BaseFetcher, Updater } from 'tuf-js';

/** tuf-js tells a missing file from a broken line by its own error class, which it does not export. */
const { DownloadHTTPError } = createRequire(import.meta.url)('tuf-js/dist/error.js') as {
  DownloadHTTPError: new (message: string, statusCode: number) => Error;
};

/** The file of a name as it is asked for, null where the repository has none. */
export type FileSource = (name: string) => Uint8Array | null;

class SourceFetcher extends BaseFetcher {
  readonly source: FileSource;

  constructor(source: FileSource) {
    super();
    this.source = source;
  }

  override async fetch(url: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    const bytes = this.source(decodeURIComponent(url.split('/').at(-1) ?? ''));
    if (bytes === null) throw new DownloadHTTPError(url, 404);
    return new ReadableStream({
      start(controller) {
        controller.enqueue(new Uint8Array(bytes));
        controller.close();
      },
    });
  }
}

export class TufJsClient {
  readonly folder = mkdtempSync(join(tmpdir(), 'lepton-tuf-js-'));

  constructor(root: Uint8Array) {
    writeFileSync(join(this.folder, 'root.json'), root);
  }

  /** Replaces one of its stored files, as a failing disk would. */
  tear(name: string, bytes: Uint8Array): void {
    writeFileSync(join(this.folder, name), bytes);
  }

  updater(source: FileSource): Updater {
    return new Updater({
      metadataDir: this.folder,
      metadataBaseUrl: 'http://127.0.0.1:1',
      fetcher: new SourceFetcher(source),
      config: { maxRootRotations: 32 },
    });
  }

  /** Digest of a target, null where it names none, or the error it throws. */
  async ask(source: FileSource, path: string): Promise<string | null | Error> {
    return digestOf(() => this.updater(source).getTargetInfo(path));
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }
}

/** What an updater found, in the same words as `ask`. */
export async function digestOf(
  find: () => Promise<{ hashes: Record<string, string> } | undefined>,
): Promise<string | null | Error> {
  try {
    const found = await find();
    return found === undefined ? null : (found.hashes['sha256'] ?? '');
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
