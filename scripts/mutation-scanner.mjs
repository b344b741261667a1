// Why: finds every check in a compiled file by its shape, so that the mutation run needs no list of checks that
// somebody keeps by hand. Trusts: the compiler's formatting only as far as brackets balance.
// Must never: change text inside strings, templates, regular expressions or comments.

/** The same text with the insides of strings, templates, regular expressions and comments blanked. */
export function mask(text) {
  const out = text.split('');
  const blank = (from, to) => {
    for (let at = from; at < to; at += 1) if (out[at] !== '\n') out[at] = ' ';
  };
  let at = 0;
  let before = '';
  while (at < text.length) {
    const two = text.slice(at, at + 2);
    const start = at;
    if (two === '//') at = endOf(text, '\n', at);
    else if (two === '/*') at = endOf(text, '*/', at + 2) + 2;
    else if (text[at] === '`') at = endOfTemplate(text, at);
    else if (text[at] === '"' || text[at] === "'") at = endOfQuoted(text, at, text[at]);
    else if (text[at] === '/' && mayBeRegExp(before)) at = endOfRegExp(text, at);
    else {
      if (/\S/.test(text[at])) before = (before + text[at]).slice(-7);
      at += 1;
      continue;
    }
    // Something must stay, or an empty argument would look like none.
    if (two !== '//' && two !== '/*') {
      blank(start + 1, at - 1);
      before = (before + text[start]).slice(-7);
    } else blank(start, at);
  }
  return out.join('');
}

const endOf = (text, what, from) => {
  const found = text.indexOf(what, from);
  return found < 0 ? text.length : found;
};

function endOfQuoted(text, from, quote) {
  for (let at = from + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === quote) return at + 1;
  }
  return text.length;
}

function endOfTemplate(text, from) {
  for (let at = from + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === '`') return at + 1;
    else if (text[at] === '$' && text[at + 1] === '{') {
      let depth = 1;
      for (at += 2; depth > 0 && at < text.length; at += 1) {
        if (text[at] === '{') depth += 1;
        else if (text[at] === '}') depth -= 1;
        else if (text[at] === '/' && /[(,]\s*$/.test(text.slice(from, at))) at = endOfRegExp(text, at) - 1;
        else if (text[at] === '`') at = endOfTemplate(text, at) - 1;
        else if (text[at] === '"' || text[at] === "'") at = endOfQuoted(text, at, text[at]) - 1;
      }
      at -= 1;
    }
  }
  return text.length;
}

function endOfRegExp(text, from) {
  let inClass = false;
  for (let at = from + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === '[') inClass = true;
    else if (text[at] === ']') inClass = false;
    else if (text[at] === '/' && !inClass) {
      at += 1;
      while (/[a-z]/.test(text[at] ?? '')) at += 1;
      return at;
    }
  }
  return text.length;
}

const mayBeRegExp = (before) => before === '' || /([(,=:[!&|?{};]|return|>)$/.test(before);

const open = '([{';
const close = ')]}';

/** Index after the bracket that closes the one at `from`. */
function closing(masked, from) {
  let depth = 0;
  for (let at = from; at < masked.length; at += 1) {
    if (open.includes(masked[at])) depth += 1;
    else if (close.includes(masked[at])) {
      depth -= 1;
      if (depth === 0) return at + 1;
    }
  }
  throw new Error(`a bracket at ${from} does not close`);
}

/** Index of the `;` that ends the statement at `from`. */
function endOfStatement(masked, from) {
  for (let at = from; at < masked.length; at += 1) {
    if (open.includes(masked[at])) at = closing(masked, at) - 1;
    else if (masked[at] === ';') return at + 1;
    else if (masked[at] === '}') return at;
  }
  return masked.length;
}

/** Ranges between the operator where it stands outside brackets. */
function split(masked, from, to, operator) {
  const parts = [];
  let start = from;
  for (let at = from; at < to; at += 1) {
    if (open.includes(masked[at])) at = closing(masked, at) - 1;
    else if (masked.startsWith(operator, at)) {
      parts.push([start, at]);
      start = at + operator.length;
      at = start - 1;
    }
  }
  parts.push([start, to]);
  return parts.map(([a, b]) => trim(masked, a, b));
}

function trim(masked, from, to) {
  let [a, b] = [from, to];
  while (a < b && /\s/.test(masked[a])) a += 1;
  while (b > a && /\s/.test(masked[b - 1])) b -= 1;
  return [a, b];
}

const skipSpace = (masked, from) => trim(masked, from, masked.length)[0];

/** A body that ends the work without a result: nothing, no, or a result that was refused before. */
const guards = /^(return( (null|false|0|\[\]|[\w$]+|[\w$.]+\.refusal))?;|continue;|break;|this\.#stop\()/;
const throwing = /^throw\b/;
/** A condition that asks whether something was refused before. */
const judging = /^![\w$.]+\.(ok|success)$/;

/** Functions of this file that give nothing but refusals, such as `unreadable(what)`. */
function refusers(masked) {
  const names = ['refuse'];
  for (const match of masked.matchAll(/\bfunction ([\w$]+)\(/g)) {
    const bodyAt = skipSpace(masked, closing(masked, match.index + match[0].length - 1));
    const body = masked.slice(bodyAt, closing(masked, bodyAt));
    if (/\brefuse\(|\bok: false\b/.test(body) && !/\bok\(/.test(body) && !/\bawait\b|\bfor\b/.test(body))
      names.push(match[1]);
  }
  for (const match of masked.matchAll(/\bconst ([\w$]+) = \([^()]*\) => refuse\(/g)) names.push(match[1]);
  return new RegExp(`^return (${names.map((name) => name.replace('$', '\\$')).join('|')})\\(`);
}

/**
 * Every check of a file as `{start, end, to, kind, source, probe}`: replacing that range by `to` removes the check;
 * `probe` is a place that runs only where the check refuses, null where there is none.
 * `options.throws`: whether a thrown fault is a check here. `options.zod`: whether schemas are.
 */
export function findChecks(text, options) {
  const masked = mask(text);
  const found = [];
  const add = (start, end, to, kind, [from, until], probe = null) => {
    const source = text.slice(from, until).replace(/\s+/g, ' ').trim();
    found.push({ start, end, to, kind, probe, part: text.slice(start, end).replace(/\s+/g, ' '), source });
  };
  ifs(masked, options, add);
  ternaries(masked, add);
  booleans(masked, add);
  if (options.zod) schemas(masked, add);
  for (const check of found) check.line = text.slice(0, check.start).split('\n').length;
  return found.sort((a, b) => a.start - b.start);
}

function ifs(masked, options, add) {
  const refusing = refusers(masked);
  for (const match of masked.matchAll(/\bif \(/g)) {
    const at = match.index + match[0].length - 1;
    const end = closing(masked, at);
    const condition = trim(masked, at + 1, end - 1);
    const bodyAt = skipSpace(masked, end);
    const isBlock = masked[bodyAt] === '{';
    const bodyEnd = isBlock ? closing(masked, bodyAt) : endOfStatement(masked, bodyAt);
    const [innerAt, innerEnd] = isBlock ? trim(masked, bodyAt + 1, bodyEnd - 1) : [bodyAt, bodyEnd];
    const body = masked.slice(innerAt, innerEnd);
    const last = lastStatement(masked, innerAt, innerEnd);
    const whole = [match.index, bodyEnd];
    const ends = guards.test(body) || refusing.test(last) || (options.throws && throwing.test(last));
    const passesOn = judging.test(masked.slice(...condition)) && !throwing.test(body);
    if (ends || passesOn) {
      const parts = split(masked, ...condition, '||');
      for (const [a, b] of parts) add(a, b, 'false', 'if', whole, innerAt);
      // Where each part may be repeated by its neighbour, all of them together may not.
      if (parts.length > 1) add(...condition, 'false', 'if-all', whole, innerAt);
    } else if (/^return ok\(/.test(body)) {
      const next = skipSpace(masked, bodyEnd);
      if (/^return refuse\(/.test(masked.slice(next))) add(...condition, 'true', 'if-ok', whole, next);
    }
  }
}

function lastStatement(masked, from, to) {
  let at = from;
  let last = '';
  while (at < to) {
    const end = endOfStatement(masked, at);
    last = masked.slice(at, Math.min(end, to)).trim() || last;
    at = end > at ? end : at + 1;
  }
  return last;
}

/** `return good ? ok(…) : refuse(…)`, and the same with a result that was refused before. */
function ternaries(masked, add) {
  for (const match of masked.matchAll(/\b(?:return|const [\w$]+ =|=>) /g)) {
    const start = match.index + match[0].length;
    const end = endOfExpression(masked, start);
    const at = questionMark(masked, start, end);
    if (at < 0) continue;
    const colon = colonOf(masked, at + 1, end);
    const condition = trim(masked, start, at);
    const [yesAt, noAt] = [skipSpace(masked, at + 1), skipSpace(masked, colon + 1)];
    const yes = masked.slice(...trim(masked, yesAt, colon));
    const no = masked.slice(...trim(masked, noAt, end));
    const whole = [match.index, end];
    const judges = /\.(ok|success)$/.test(masked.slice(...condition));
    if (/^refuse\(/.test(no) || (judges && /^[\w$.]+$/.test(no)))
      add(...condition, 'true', 'ternary', whole, noAt);
    else if (/^refuse\(/.test(yes)) add(...condition, 'false', 'ternary', whole, yesAt);
  }
}

function endOfExpression(masked, from) {
  for (let at = from; at < masked.length; at += 1) {
    if (open.includes(masked[at])) at = closing(masked, at) - 1;
    else if (/[;)\]},]/.test(masked[at])) return at;
  }
  return masked.length;
}

function questionMark(masked, from, to) {
  for (let at = from; at < to; at += 1) {
    if (open.includes(masked[at])) at = closing(masked, at) - 1;
    else if (masked[at] === '?') {
      if (masked[at + 1] === '.' || masked[at + 1] === '?') at += 1;
      else return at;
    }
  }
  return -1;
}

function colonOf(masked, from, to) {
  let depth = 0;
  for (let at = from; at < to; at += 1) {
    if (open.includes(masked[at])) at = closing(masked, at) - 1;
    else if (masked[at] === '?' && !'.?'.includes(masked[at + 1])) depth += 1;
    else if (masked[at] === ':') {
      if (depth === 0) return at;
      depth -= 1;
    }
  }
  return to;
}

/** `return a && b;` of a function that says yes or no: each conjunct is a check. */
function booleans(masked, add) {
  for (const match of masked.matchAll(/\breturn /g)) {
    const at = match.index + match[0].length;
    const until = endOfExpression(masked, at);
    const isWrapped = masked[at] === '(' && closing(masked, at) === until;
    const [start, end] = isWrapped ? trim(masked, at + 1, until - 1) : [at, until];
    if (masked[until] !== ';' || masked[start] === '{' || questionMark(masked, start, end) >= 0) continue;
    if (split(masked, start, end, '||').length > 1) continue;
    for (const [a, b] of split(masked, start, end, '&&'))
      if (says.test(shallow(masked, a, b))) add(a, b, 'true', 'boolean', [match.index, until]);
  }
}

const says = / (===|!==|<=|>=|<|>) |^!|^([\w$.#]+\.)?(has|test|some|every|verify|nodeVerify)\(\s*\)$/;

/** The text with the insides of its brackets blanked. */
function shallow(masked, from, to) {
  let out = '';
  for (let at = from; at < to; at += 1) {
    out += masked[at];
    if (!open.includes(masked[at])) continue;
    const end = closing(masked, at);
    out += ' '.repeat(end - at - 2) + masked[end - 1];
    at = end - 1;
  }
  return out;
}

/** Limits and forms in a zod schema. */
function schemas(masked, add) {
  const removable = /\.(max|min|positive|nonnegative|int|regex|refine)\(/g;
  for (const match of masked.matchAll(removable)) {
    if (/Math$/.test(masked.slice(0, match.index))) continue;
    const end = closing(masked, match.index + match[0].length - 1);
    add(match.index, end, '', 'schema', lineAround(masked, match.index, end));
  }
  for (const match of masked.matchAll(/\bz\.literal\(/g)) {
    const end = closing(masked, match.index + match[0].length - 1);
    add(match.index, end, 'z.any()', 'schema', lineAround(masked, match.index, end));
  }
}

function lineAround(masked, from, to) {
  const start = masked.lastIndexOf('\n', from) + 1;
  const end = masked.indexOf('\n', to);
  return [start, end < 0 ? masked.length : end];
}
