// Why: finds what command lines write past the translation, by file and line: a text given straight to stdout or stderr,
// and words in a column of a table that holds names.
// Trusts: the compiler (its tree is marked unstable: the version is pinned). Must never: guess; what may be written as it
// is stands below with a reason.
import { dirname, join, posix, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SyntaxKind as K } from 'typescript/unstable/ast';
import { API } from 'typescript/unstable/sync';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const looked = /^((registry|agent|firmware-sim)\/cli\/|firmware-sim\/demo\/|shared\/host\/terminal\.ts$)/;

/** What writes to a terminal or a pipe as it is given. `console` is for nobody here. */
const isWriting = (callee) =>
  /^(process\.(stdout|stderr)|stdout|stderr|out|stage)\.write$|^(writeOut|writeStdout)$|^console\./.test(
    callee,
  );

/** Calls that give what is said already, or what a program reads. */
const says =
  /^(spoken|spokenHelpText|say|word|lines|(speaker\(\)|voice)\.(say|word|lines)|JSON\.stringify|(residency|models)Markdown|residencyJson)$/;

/** What is written as it is: the file, the expression, why. Each must be met. */
const asItIs = [
  [/\/main\.ts$/, 'line', 'of formatError, which is given how to say it'],
  ['registry/cli/main.ts', 'fault.line', 'of formatError, which is given how to say it'],
  ['registry/cli/main.ts', '`lepton: ${', 'the program’s name before an error, as it is in all languages'],
  ['registry/cli/main.ts', 'code', 'of an error: the same in all languages'],
  ['registry/cli/output.ts', 'text', 'of writeOut, whose callers are looked at'],
  ['registry/cli/telemetry-commands.ts', 'head', 'words that were said, padded'],
  ['registry/cli/telemetry-commands.ts', 'text', 'records: names, times and data'],
  ['firmware-sim/cli/demo.ts', 'text', 'of the demo’s stage, whose callers are looked at'],
  ['firmware-sim/cli/explore.ts', 'line', 'JSON'],
  ['firmware-sim/cli/sensor.ts', 'shown(…)', 'JSON, or what was said'],
  ['firmware-sim/cli/scenario.ts', 'texts', 'a file for programs: CSV or YAML'],
  ['firmware-sim/cli/whole-file.ts', 'chunk', 'a file for programs'],
  ['firmware-sim/demo/view.ts', 'timed', 'what was said, behind a time'],
  ['firmware-sim/demo/view.ts', 'drawn', 'lines that were said, cut to the screen'],
  ['firmware-sim/demo/view.ts', 'clockText(…)', 'minutes and seconds'],
];

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
const terminalCodes = /\u001b\[[0-9;]*[A-Za-z]/g;
const hasLetters = (text) => /\p{L}/u.test(text.replaceAll(terminalCodes, ''));
const isText = (node) => node.kind === K.StringLiteral || node.kind === K.NoSubstitutionTemplateLiteral;
const wraps = new Set([K.ParenthesizedExpression, K.AsExpression, K.SatisfiesExpression, K.AwaitExpression]);
/** Of these the value itself is written, or what stands in it. */
const throughCalls = new Set(['padStart', 'padEnd', 'trimEnd', 'toString', 'join']);

/** As it stands in the list above. */
function nameOf(node, file) {
  const text = file.text.slice(node.getStart?.(file) ?? node.pos, node.end).trim();
  return node.kind === K.CallExpression ? `${calleeOf(node, file)}(…)` : text;
}

function calleeOf(call, file) {
  const { expression } = call;
  return file.text.slice(expression.getStart?.(file) ?? expression.pos, expression.end).trim();
}

/** Constants of a file that are declared once: of two with one name nobody knows which is meant. */
function constantsOf(file) {
  const found = new Map();
  const walk = (node) => {
    const names = node.kind === K.VariableDeclaration || node.kind === K.Parameter;
    if (names && node.name.kind === K.Identifier)
      found.set(node.name.text, found.has(node.name.text) ? undefined : node.initializer);
    node.forEachChild(walk);
  };
  walk(file);
  return found;
}

/** Pieces of an expression that reach the writer as they are. */
function unsaidIn(node, file, constants) {
  if (isText(node)) return hasLetters(node.text) ? [node] : [];
  if (node.kind === K.NumericLiteral) return [];
  if (wraps.has(node.kind)) return unsaidIn(node.expression, file, constants);
  if (node.kind === K.TemplateExpression) {
    const texts = [node.head, ...node.templateSpans.map(({ literal }) => literal)];
    return [
      ...texts.filter(({ text }) => hasLetters(text)),
      ...node.templateSpans.flatMap(({ expression }) => unsaidIn(expression, file, constants)),
    ];
  }
  if (node.kind === K.ConditionalExpression)
    return [node.whenTrue, node.whenFalse].flatMap((one) => unsaidIn(one, file, constants));
  if (node.kind === K.BinaryExpression)
    return [node.left, node.right].flatMap((one) => unsaidIn(one, file, constants));
  if (node.kind === K.CallExpression) {
    const callee = calleeOf(node, file);
    if (says.test(callee)) return [];
    if (throughCalls.has(callee.split('.').at(-1)))
      return unsaidIn(node.expression.expression, file, constants);
  }
  if (node.kind === K.Identifier) {
    const value = constants.get(node.text);
    if (value !== undefined && unsaidIn(value, file, new Map()).length === 0) return [];
  }
  return [node];
}

/** The columns of output.ts whose cells are said. */
function saidColumnsOf(file) {
  const found = new Set();
  const collect = (node) => {
    if (isText(node)) found.add(node.text);
    node.forEachChild(collect);
  };
  const walk = (node) => {
    if (node.kind === K.VariableDeclaration && node.name.text === 'saidColumns') collect(node.initializer);
    else node.forEachChild(walk);
  };
  walk(file);
  return found;
}

/** What a cell may be, where that stands in it. */
function textsOf(node) {
  if (isText(node)) return [node];
  if (node.kind === K.ParenthesizedExpression) return textsOf(node.expression);
  if (node.kind === K.ConditionalExpression) return [...textsOf(node.whenTrue), ...textsOf(node.whenFalse)];
  if (node.kind === K.BinaryExpression) return [...textsOf(node.left), ...textsOf(node.right)];
  return [];
}

/** Words in rows of a table, in columns that are not said. `(…)` is said in every column. */
function unsaidCells(call, said) {
  const [head, rows] = call.arguments;
  if (head?.kind !== K.ArrayLiteralExpression || rows === undefined || !head.elements.every(isText))
    return [];
  const names = head.elements.map(({ text }) => text);
  const found = [];
  const walk = (node) => {
    const isRow = node.kind === K.ArrayLiteralExpression && node.elements.length === names.length;
    if (isRow && names.length > 1 && node.elements.every(({ kind }) => kind !== K.SpreadElement))
      for (const [column, cell] of node.elements.entries())
        for (const text of said.has(names[column]) ? [] : textsOf(cell))
          if (/\p{L}{2,}/u.test(text.text) && !/^\(.*\)$/.test(text.text)) found.push(text);
    node.forEachChild(walk);
  };
  walk(rows);
  return found;
}

/** `file:line: text` of what is written past the translation, and of exceptions that nothing meets any more. */
export function collectUnsaid() {
  const api = new API({ cwd: root });
  const met = new Set();
  const found = [];
  try {
    const [project] = api.updateSnapshot({ openProject: join(root, 'tsconfig.json') }).getProjects();
    const said = saidColumnsOf(project.program.getSourceFile(join(root, 'registry/cli/output.ts')));
    for (const full of [...project.rootFiles].sort()) {
      const path = relative(root, full).split(sep).join(posix.sep);
      if (!looked.test(path)) continue;
      const file = project.program.getSourceFile(full);
      const constants = constantsOf(file);
      const tell = (node) => {
        const at = node.getStart?.(file) ?? node.pos;
        const line = file.text.slice(0, at).split('\n').length;
        found.push(`${path}:${line}: ${nameOf(node, file)}`);
      };
      const isExcepted = (node) => {
        const name = nameOf(node, file);
        const index = asItIs.findIndex(
          ([where, what]) => what === name && (where instanceof RegExp ? where.test(path) : where === path),
        );
        if (index >= 0) met.add(index);
        return index >= 0;
      };
      const walk = (node) => {
        if (node.kind === K.CallExpression) {
          const callee = calleeOf(node, file);
          const [written] = node.arguments;
          if (isWriting(callee) && written !== undefined)
            for (const piece of unsaidIn(written, file, constants)) if (!isExcepted(piece)) tell(piece);
          if (callee === 'table') for (const cell of unsaidCells(node, said)) tell(cell);
        }
        node.forEachChild(walk);
      };
      walk(file);
    }
  } finally {
    api.close();
  }
  for (const [index, [where, what]] of asItIs.entries())
    if (!met.has(index)) found.push(`scripts/unsaid.mjs: ${where} writes no ${what} any more`);
  return found;
}
