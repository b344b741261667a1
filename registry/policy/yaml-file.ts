// Why: a file that a person wrote, as YAML, and where in it something is wrong.
// Trusts: nothing in the text. Must never: let a text take the library's time or stack.

import { Document, isMap, isNode, LineCounter, type Node, parseDocument } from 'yaml';
import type { z } from 'zod';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';

type Path = readonly PropertyKey[];

/** Characters of a refusal's detail behind its place. */
const wordsMax = 500;
/** A rollout needs a hundred marks and a depth of eight; the YAML library's time and stack grow with both. */
const marksMax = 4_000;
const depthMax = 64;

/**
 * Whether the library may see the text at all. It recurses for each level, and a stack that ends inside a regular
 * expression ends the process; equal keys are looked for pair by pair. Counted without regard to quotes.
 */
function isTooMuch(text: string): boolean {
  let depth = 0;
  for (const line of text.split('\n')) {
    // Block structures open by indentation, and by indicators that stand one after the other on a line.
    const blocks = line.match(/(?<=^|\s)[-?:](?=\s|$)/g)?.length ?? 0;
    if ((/^\s*/.exec(line)?.[0].length ?? 0) > 2 * depthMax || blocks > depthMax) return true;
    for (const one of line) {
      if (one === '[' || one === '{') depth += 1;
      else if (one === ']' || one === '}') depth = Math.max(0, depth - 1);
      if (depth > depthMax) return true;
    }
  }
  return (text.match(/[:,?[\]{}&*!\n]|-\s/g)?.length ?? 0) > marksMax;
}

export interface YamlFile<T> {
  data: T;
  /** A refusal that names line and column of what the path names. */
  at(code: ErrorCode, path: Path, what: string): { ok: false; refusal: { code: ErrorCode; detail: string } };
}

/**
 * Reads YAML (or JSON, which is YAML). The detail names line and column:
 * `line 7, column 5: spec.waves.0: give either count or percent`. Refusal: `code`.
 */
export function readYamlFile<S extends z.ZodType>(
  text: string,
  schema: S,
  code: ErrorCode,
): Result<YamlFile<z.infer<S>>> {
  if (isTooMuch(text)) return refuse(code, 'it is nested too deeply, or holds too much');
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true });
  const at = (why: ErrorCode, offset: number, what: string) => {
    const { line, col } = lines.linePos(offset);
    // A path holds what the writer wrote, and a key may be as long as the file.
    const words = what.length <= wordsMax ? what : `${what.slice(0, wordsMax)}…`;
    return refuse(why, `line ${Math.max(line, 1)}, column ${Math.max(col, 1)}: ${words}`);
  };
  const [syntax] = document.errors;
  if (syntax !== undefined) return at(code, syntax.pos[0], syntax.message);

  let body: unknown;
  try {
    body = document.toJS();
  } catch (error) {
    // Too many aliases, or one without its anchor: the library throws plain errors here.
    return at(code, 0, error instanceof Error ? error.message : 'it cannot be resolved');
  }
  const parsed = schema.safeParse(body);
  if (parsed.success)
    return ok({
      data: parsed.data,
      at: (why, path, what) => at(why, offsetOf(document.contents, path), what),
    });
  const [issue] = parsed.error.issues;
  if (issue === undefined) return at(code, 0, 'invalid');
  const path = pathOf(issue);
  const name = path.map(String).join('.');
  return at(
    code,
    offsetOf(document.contents, path),
    name === '' ? issue.message : `${name}: ${issue.message}`,
  );
}

/** YAML that `readYamlFile` reads back, with a comment at its head. */
export function yamlText(body: Readonly<Record<string, unknown>>, comment: string): string {
  const document = new Document(body);
  document.commentBefore = ` ${comment}`;
  return document.toString({ lineWidth: 120 });
}

/** Where the issue points; for an unknown key at the key itself. */
function pathOf(issue: z.core.$ZodIssue): Path {
  if (issue.code !== 'unrecognized_keys') return issue.path;
  return [...issue.path, ...issue.keys.slice(0, 1)];
}

/** Offset of the key (in a map) or item that the path names, as far as the document goes along with it. */
function offsetOf(root: Node | null, path: Path): number {
  let offset = root?.range?.[0] ?? 0;
  let node: unknown = root;
  for (const part of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isNode(key) && String(key) === String(part));
      if (pair === undefined) return offset;
      if (isNode(pair.key)) offset = pair.key.range?.[0] ?? offset;
      node = pair.value;
    } else if (isNode(node) && 'items' in node && Array.isArray(node.items) && typeof part === 'number') {
      node = node.items[part];
      if (!isNode(node)) return offset;
      offset = node.range?.[0] ?? offset;
    } else {
      return offset;
    }
  }
  return offset;
}
