// Why: what somebody who may upload, or stole a publisher's token or key, tries against the registry; each attack
// is a row with the code that must refuse it. Trusts: the groups for their rows. Must never: leave a group out.

import type { UploadCase } from './upload-attempt.ts';
import { files, forms, history } from './upload-what.ts';
import { access, authority } from './upload-who.ts';

export { closeUploadWorld, type UploadCase, uploadWorld } from './upload-attempt.ts';

export const uploadCases: UploadCase[] = [...authority, ...access, ...files, ...history, ...forms];
