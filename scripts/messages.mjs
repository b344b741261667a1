// Why: finds every text of the sources that a person may read, as the templates that the catalogues translate: the
// compiler's own syntax tree, so that no list of texts is kept by hand.
// Trusts: the compiler (its tree is marked unstable: the version is pinned). Must never: guess; what it leaves out
// stands below with a reason.
import { dirname, join, posix, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SyntaxKind } from 'typescript/unstable/ast';
import { API } from 'typescript/unstable/sync';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Folders and files whose texts are for nobody who uses the programs. */
const leftOut = [
  [/^test\//, 'the roof'],
  [
    /^firmware-sim\/(?!cli\/|demo\/|scenarios\/|explore\/(explore|coverage|shrink|workers|runner)\.ts)/,
    'what the simulator says about the code itself, to those who write it',
  ],
  [/^agent\/api\/page/, 'has its own words in both languages'],
  [/^registry\/learn\/conversion\.ts$/, 'goes into signed files of a release, the same for everyone'],
  [/^registry\/cli\/trained-release\.ts$/, 'goes into signed files of a release, the same for everyone'],
  [/^shared\/wire\/json-schemas\.ts$/, 'titles of schemas'],
  [/^registry\/(rollout\/states|api\/access-table)\.ts$/, 'tables for the documentation'],
  [/^registry\/fleet\/mosquitto\.ts$/, 'comments in a file for another program'],
  [/^registry\/api\/metrics\.ts$|^agent\/api\/metrics\.ts$/, 'help texts of metrics, for a program'],
];

/** What is called with text that is no message, by the name of what is called. */
const notMessages = new Map([
  ...['run', 'get', 'all', 'exec', 'prepare', 'transactions', 'pragma'].map((name) => [name, 'SQL']),
  ...[
    'selectFrom',
    'select',
    'selectAll',
    'innerJoin',
    'leftJoin',
    'where',
    'whereRef',
    'orderBy',
    'groupBy',
  ].map((name) => [name, 'SQL']),
  ...['on', 'onRef', 'as', 'ref', 'max', 'min', 'sum', 'count', 'updateTable', 'insertInto'].map((name) => [
    name,
    'SQL',
  ]),
  ['invariant', 'a bug: nobody can do anything but report it word by word'],
  ['emit', 'the log'],
  ...['remember', 'onRefused'].map((name) => [name, 'by which refusals are told apart']),
  ...['counter', 'gauge', 'summary', 'histogram'].map((name) => [name, 'help texts of metrics']),
  ...['octets', 'commandOf'].map((name) => [name, 'the OpenAPI document']),
  ...['Error', 'TypeError', 'RangeError'].map((name) => [name, 'a bug']),
  ...['test', 'match', 'split', 'includes', 'startsWith', 'endsWith', 'indexOf'].map((name) => [
    name,
    'a search',
  ]),
]);

/** Rules for one place: the file, what is called or assigned there, why it is no message. */
const notThere = [
  [/^registry\/api\//, /^\.(summary|description)$|^json$/, 'the OpenAPI document'],
  [
    /./,
    /^\.(sql|authorization|content-type|cache-control|allow|accept-encoding|www-authenticate|content-range)$/,
    'SQL or a header',
  ],
  [
    /^firmware-sim\/scenarios\//,
    /^\.(about|title)$/,
    'data of a scenario: it has both languages itself, or goes into files',
  ],
  [/./, /^new (Error|TypeError|RangeError)$/, 'a bug'],
  [/^registry\/reports\/incidents\.ts$/, /^set$/, 'a key of a map'],
  [/^registry\/cells\/day-rows\.ts$/, /^from$/, 'what is hashed'],
];

const helpCalls = new Set(['description', 'option', 'requiredOption', 'argument', 'addHelpText', 'summary']);
const isCli = (path) => /^(registry|agent|firmware-sim)\/cli\//.test(path);

/** The catalogue that holds a text of this file. */
export function topicOf(path, isHelp) {
  if (isHelp) return 'help';
  if (path === 'shared/kernel/codes.ts') return 'hints';
  if (path.startsWith('firmware-sim/')) return 'sim';
  if (isCli(path)) return 'cli';
  if (path.startsWith('registry/learn/')) return 'learn';
  if (path.startsWith('registry/rollout/')) return 'rollout';
  if (/^(shared\/(trust|crypto)|registry\/signing|agent\/trust)\//.test(path)) return 'trust';
  return path.split('/')[0];
}

const K = SyntaxKind;

/** Texts of what we use, which reach people through us. */
const foreign = [
  // commander
  ...['Usage:', 'Options:', 'Commands:', 'Arguments:', 'Global Options:', 'options', 'command'],
  ...['default:', 'choices:', 'preset:', 'env:', 'display help for command', 'output the version number'],
  ...['(outputHelp)', '(none)'],
  "unknown option '{$a}'",
  "unknown option '{$a}' (Did you mean {$b}?)",
  "unknown option '{$a}' (Did you mean one of {$b}?)",
  "unknown command '{$a}'",
  "unknown command '{$a}' (Did you mean {$b}?)",
  "unknown command '{$a}' (Did you mean one of {$b}?)",
  "missing required argument '{$a}'",
  "required option '{$a}' not specified",
  "option '{$a}' argument missing",
  "option '{$a}' argument '{$b}' is invalid. {$c}",
  "option '{$a}' value '{$b}' from env '{$c}' is invalid. {$d}",
  "command-argument value '{$a}' is invalid for argument '{$b}'. {$c}",
  "option '{$a}' cannot be used with option '{$b}'",
  'Allowed choices are {$a}.',
  'too many arguments. Expected {$a} argument but got {$b}.',
  'too many arguments. Expected {$a} arguments but got {$b}.',
  "too many arguments for '{$a}'. Expected {$b} argument but got {$c}.",
  "too many arguments for '{$a}'. Expected {$b} arguments but got {$c}.",
  // zod
  'Invalid input',
  'Invalid input: expected {$a}, received {$b}',
  'Invalid input: expected {$a}',
  'Invalid option: expected one of {$a}',
  'Too big: expected {$a} to have {$b}',
  'Too big: expected {$a} to be {$b}',
  'Too small: expected {$a} to have {$b}',
  'Too small: expected {$a} to be {$b}',
  'Invalid string: must start with {$a}',
  'Invalid string: must end with {$a}',
  'Invalid string: must include {$a}',
  'Invalid string: must match pattern {$a}',
  'Invalid number: must be a multiple of {$a}',
  'Unrecognized key: {$a}',
  'Unrecognized keys: {$a}',
  'Invalid key in {$a}',
  'Invalid value in {$a}',
  ...['ISO datetime', 'URL', 'email address', 'base64-encoded string', 'IPv4 address', 'UUID'].map(
    (what) => `Invalid ${what}`,
  ),
];

/** Single words of ours that stand in sentences and cells. */
const ownWords = [
  ...['connected', '(all)', 'yes', 'no', 'withdrawn', 'assignable', 'rollout', 'masked', 'left', 'barred'],
  ...['input', 'output', 'target', 'parameter', 'device', 'devices', 'others', 'nothing', 'test', 'training'],
  ...['numeric', 'categorical', 'columns', 'rows', 'numbers', 'answers', 'requests'],
  ...['classification', 'regression', 'forecast', 'anomaly', '{$a}, separator {$b}'],
  ...[
    'plain',
    'compressed',
    'DATA',
    'seeds',
    'home',
    'never',
    'allow',
    'deny',
    'all',
    '(here)',
    '{$a} (offline)',
    'with',
    'usable',
    'sealed',
    'absent',
  ],
  ...['run', 'pause', 'wait', 'abort', 'abort-revert', 'approved', 'measured', 'modelled', 'withheld'],
  ...['cell', 'answered', 'latency', 'features', '{$a} (line {$b})', '{$a} refuses', 'Nothing.'],
  // A key that joins or leaves a role, by its holder.
  ...['-', '+'].flatMap((sign) => [
    `${sign} (not named) ({$a})`,
    `${sign} the registry itself, at install ({$a})`,
  ]),
  'region root {$a}, good until {$b}:',
  ...['1 site', '{$a} sites', 'answers of the release before', 'requests of the release before'],
  ...['fetch', 'push', 'upload', 'ask', 'train', 'pull', 'verify', 'read'],
];

/** Lists of words that people meet in tables. */
const wordLists =
  /(States|Outcomes|incidentKinds|Statuses|Verdicts|Reasons|Places|maskedClasses|telemetryClasses)$/;
const wordFields = new Set([
  'status',
  'state',
  'verdict',
  'presence',
  'source',
  'way',
  'outcome',
  'where',
  'behind',
  'keys',
]);

function listedWords(node, path) {
  if (!path.startsWith('shared/')) return [];
  let list = null;
  if (node.kind === K.VariableDeclaration && wordLists.test(node.name.text ?? '')) list = node.initializer;
  if (
    node.kind === K.PropertyAssignment &&
    wordFields.has(node.name.text) &&
    path.startsWith('shared/wire/')
  ) {
    const call = node.initializer;
    if (call.kind === K.CallExpression && nameOf(call) === 'enum') [list] = call.arguments;
  }
  while (list !== null && list !== undefined && wraps.has(list.kind)) list = list.expression;
  return list?.kind === K.ArrayLiteralExpression ? list.elements.filter(isText).map(({ text }) => text) : [];
}
const hole = (node) => [{ hole: node }];
const isText = (node) => node.kind === K.StringLiteral || node.kind === K.NoSubstitutionTemplateLiteral;
const hasLetters = (variants) =>
  variants.some((pieces) => pieces.some((piece) => typeof piece === 'string' && /\p{L}/u.test(piece)));
const wraps = new Set([
  K.ParenthesizedExpression,
  K.AsExpression,
  K.SatisfiesExpression,
  K.NonNullExpression,
]);
const variantsMax = 24;

/** `counted(3, 'row')` is `3 rows`. */
const counting = new Set(['counted', 'some']);

/** Every text that an expression may be, as pieces of text and holes. */
function variantsOf(node, constants, depth = 0) {
  if (isText(node)) return [[node.text]];
  if (wraps.has(node.kind)) return variantsOf(node.expression, constants, depth);
  if (node.kind === K.TemplateExpression) {
    let all = [[node.head.text]];
    for (const span of node.templateSpans) {
      const inner = spanVariants(span.expression, constants, depth);
      const next = all.flatMap((pieces) => inner.map((more) => [...pieces, ...more, span.literal.text]));
      all =
        next.length <= variantsMax
          ? next
          : all.map((pieces) => [...pieces, ...hole(span.expression), span.literal.text]);
    }
    return all;
  }
  if (node.kind === K.CallExpression && counting.has(nameOf(node)) && isText(node.arguments[1] ?? node)) {
    const [count, one] = node.arguments;
    return [one.text, `${one.text}s`].map((word) => [...hole(count), ` ${word}`]);
  }
  if (node.kind === K.ConditionalExpression)
    return [...variantsOf(node.whenTrue, constants, depth), ...variantsOf(node.whenFalse, constants, depth)];
  if (node.kind === K.BinaryExpression) {
    const sign = node.operatorToken.kind;
    if (sign === K.QuestionQuestionToken || sign === K.BarBarToken)
      return [...variantsOf(node.left, constants, depth), ...variantsOf(node.right, constants, depth)];
    if (sign === K.PlusToken) {
      const left = variantsOf(node.left, constants, depth);
      const right = variantsOf(node.right, constants, depth);
      const known = [...left, ...right].some((pieces) => pieces.some((piece) => typeof piece === 'string'));
      if (known && left.length * right.length <= variantsMax)
        return left.flatMap((one) => right.map((two) => [...one, ...two]));
    }
  }
  if (node.kind === K.Identifier && depth < 3) {
    const value = constants.get(node.text);
    if (value !== undefined) return variantsOf(value, constants, depth + 1);
  }
  return [hole(node)];
}

/** Inside a sentence a choice is worth a sentence each only where it is between words. */
function spanVariants(node, constants, depth) {
  const variants = variantsOf(node, constants, depth);
  if (variants.length === 1) return variants;
  const choice = hasLetters(variants) || variants.some((pieces) => pieces.length > 1);
  return choice ? variants : [hole(node)];
}

const letters = 'abcdefghijklmnopqrstuvwxyz';

/** `{$a} of {$b}`; braces of the text itself are escaped. */
function keyOf(pieces) {
  let count = 0;
  let key = '';
  for (const piece of pieces) {
    if (typeof piece === 'string') key += piece.replace(/[\\{}]/g, '\\$&');
    else {
      key += `{$${letters[count % 26]}${count < 26 ? '' : Math.floor(count / 26)}}`;
      count += 1;
    }
  }
  return key;
}

/** A heading of a report may be one word. */
const isHeading = (path, line) => path.startsWith('registry/reports/') && /^#+ \p{L}/u.test(line);

/** Two words, or a word and a value, with a space between them. */
function isProse(key) {
  const text = key.replaceAll(/\{\$\w+\}/g, '{');
  // A condition of a query.
  if (/ IN \(SELECT /.test(text)) return false;
  if (/^\s*(SELECT|INSERT|UPDATE|DELETE|PRAGMA|CREATE|ALTER|DROP|BEGIN|WITH|VACUUM)\b/.test(text))
    return false;
  // Lines of other programs' files and shells.
  if (
    /^(# (HELP|TYPE)|topic |pattern |user (registry|\{)|ulimit |const |version https|DSSEv1|Abs Ceil|# )|_bucket\{|_(sum|count)\{/.test(
      text,
    )
  )
    return false;
  // Columns, headers and the like.
  if (
    /^[\w.]+ as \w+$|^\w+_\w+(, \w+)+$|^[\w.]+ = \?|^\w+(, \w+){4,}$|^(HTTP\/1\.1|Bearer|content-(type|length):|x-lepton-code:|connection:) \S*( \S+)?$/.test(
      text,
    )
  )
    return false;
  if (/^-----|^\w+\/\w+;|=>|<\/?\w+[ >]/.test(text)) return false;
  return /\p{L}{2,}[^\s\p{L}]*\s+[\p{L}{("“'`\d-]/u.test(text) || /[{\d][^\s\p{L}]*\s+\p{L}{2,}/u.test(text);
}

function constantsOf(file) {
  const found = new Map();
  const walk = (node) => {
    if (node.kind === K.VariableDeclaration && node.name.kind === K.Identifier) {
      const { text } = node.name;
      const value = node.initializer;
      const good =
        value !== undefined &&
        (isText(value) || value.kind === K.TemplateExpression || value.kind === K.ConditionalExpression);
      // Of two with one name nobody knows which is meant.
      found.set(text, good && !found.has(text) ? value : undefined);
    } else if (node.kind === K.Parameter && node.name.kind === K.Identifier)
      found.set(node.name.text, undefined);
    node.forEachChild(walk);
  };
  walk(file);
  return found;
}

const nameOf = (call) => call.expression?.name?.text ?? call.expression?.text ?? '';
const transparent = new Set([
  ...wraps,
  K.ConditionalExpression,
  K.BinaryExpression,
  K.TemplateExpression,
  K.TemplateSpan,
  K.SpreadElement,
]);

/** What a text is given to: a call with the place of the argument, or a property. */
function contextOf(trail) {
  for (let at = trail.length - 1; at >= 0; at -= 1) {
    const above = trail[at];
    if (transparent.has(above.kind)) continue;
    if (above.kind === K.CallExpression) return { name: nameOf(above), call: above };
    if (above.kind === K.NewExpression) return { name: `new ${nameOf(above)}`, call: above };
    if (above.kind === K.PropertyAssignment) return { name: `.${above.name.text ?? ''}`, call: null };
    return { name: '', call: null };
  }
  return { name: '', call: null };
}

/** Heads of a table: in upper case on a terminal, as it is in a report. */
function wordsOf(node, trail, path) {
  if (!isText(node)) return null;
  const [call, above] = trail.slice(-2);
  if (path.startsWith('registry/reports/'))
    return call?.kind === K.CallExpression && nameOf(call) === 'table' && call.arguments.includes(above)
      ? node.text
      : null;
  if (!(isCli(path) || path === 'firmware-sim/demo/view.ts')) return null;
  if (above?.kind === K.ArrayLiteralExpression && /^(?!SIG)[A-Z][A-Z0-9 /%²-]*$/.test(node.text))
    return node.text;
  return null;
}

/** Every message of the sources: key → where it stands. */
export function collectMessages() {
  const api = new API({ cwd: root });
  const messages = new Map();
  const add = (key, topic, where) => {
    const known = messages.get(key);
    if (known === undefined) messages.set(key, { key, topic, where: [where] });
    else known.where.push(where);
  };
  try {
    const [project] = api.updateSnapshot({ openProject: join(root, 'tsconfig.json') }).getProjects();
    for (const full of [...project.rootFiles].sort()) {
      const path = relative(root, full).split(sep).join(posix.sep);
      if (leftOut.some(([pattern]) => pattern.test(path))) continue;
      const file = project.program.getSourceFile(full);
      const constants = constantsOf(file);
      const lines = [...file.text.matchAll(/\n/g)].map(({ index }) => index);
      const lineOf = (position) => lines.filter((at) => at < position).length + 1;
      const visit = (node, trail) => {
        if (node.kind === K.ImportDeclaration || node.kind === K.ExportDeclaration) return;
        if (node.kind === K.TaggedTemplateExpression || node.kind === K.LiteralType) return;
        const parent = trail.at(-1);
        for (const word of listedWords(node, path)) add(word, 'words', `${path}:${lineOf(node.pos)}`);
        if (
          path === 'shared/kernel/codes.ts' &&
          node.kind === K.PropertyAssignment &&
          nameOf(node.initializer) === 'row'
        )
          add(node.name.text, 'titles', `${path}:${lineOf(node.name.pos)}`);
        const isRoot =
          isText(node) ||
          (node.kind === K.CallExpression && counting.has(nameOf(node))) ||
          node.kind === K.TemplateExpression ||
          (node.kind === K.BinaryExpression && node.operatorToken.kind === K.PlusToken);
        if (isRoot) {
          const { name, call } = contextOf(trail);
          const bare = name.replace(/^new /, '');
          const excluded =
            (call !== null && notMessages.has(bare)) ||
            notThere.some(([where, what]) => where.test(path) && what.test(name)) ||
            parent?.kind === K.ElementAccessExpression ||
            (parent?.kind === K.PropertyAssignment && parent.name === node);
          const variants = variantsOf(node, constants);
          const textual = variants.some((pieces) => pieces.some((piece) => typeof piece === 'string'));
          if (!excluded && textual) {
            const isHelp =
              isCli(path) && (helpCalls.has(bare) || /^(Option|Argument)$/.test(bare) || name === 'among');
            const where = `${path}:${lineOf(node.getStart?.(file) ?? node.pos)}`;
            const whole = isHelp || bare === 'row';
            for (const pieces of variants) {
              const key = keyOf(pieces);
              for (const line of whole ? [key.trim()] : key.split('\n').map((one) => one.trim()))
                if (isProse(line) || isHeading(path, line)) add(line, topicOf(path, isHelp), where);
            }
            const word = wordsOf(node, trail, path);
            if (word !== null) add(word, 'words', where);
            // A description may be one word.
            const place = /^(description|summary)$/.test(bare) ? 0 : 1;
            if (isHelp && call?.arguments[place] === node && /\p{Ll}/u.test(node.text ?? ''))
              add(keyOf([node.text]).trim(), 'help', where);
          }
          if (textual) {
            // What stands in a hole is a text of its own.
            for (const inner of holesOf(node, constants)) visit(inner, [...trail, node]);
            return;
          }
        }
        node.forEachChild((child) => visit(child, [...trail, node]));
      };
      visit(file, []);
    }
  } finally {
    api.close();
  }
  for (const key of ownWords) add(key, 'words', 'scripts/messages.mjs');
  for (const key of foreign) add(key, 'foreign', 'scripts/messages.mjs');
  return messages;
}

function holesOf(node, constants) {
  const found = new Set();
  for (const pieces of variantsOf(node, constants))
    for (const piece of pieces) if (typeof piece !== 'string') found.add(piece.hole);
  // Conditions hold no text that is shown.
  return [...found];
}
