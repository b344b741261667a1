// Why: one picture of a run: who lived when, what it did, what went wrong, and where the invariant broke.
// Trusts: the marks of the run; their text is a stranger's to XML. Must never: need a script or a network to be read.

import type { MachineStateName } from '../../shared/wire/messages.ts';
import type { Mark } from '../world.ts';
import type { SeedResult } from './seed-run.ts';
import { type Box, escapeXml, placed, textWidth, timeText, wrapped } from './timeline-layout.ts';
import { timeScale } from './timeline-scale.ts';

/** Colours that stay apart on white and on black; the same for those who see no red or green (after Okabe and Ito). */
const phaseColours: Record<MachineStateName, string> = {
  idle: '#9aa0a6',
  offered: '#cc79a7',
  fetching: '#56b4e9',
  verifying: '#0072b2',
  staging: '#8c6bb1',
  probing: '#e69f00',
  shadowing: '#b8860b',
  switching: '#f0e442',
  soaking: '#66c2a4',
  committed: '#009e73',
  'rolling-back': '#d55e00',
};
const familyColours: Record<string, string> = {
  cut: '#d62728',
  link: '#1f77b4',
  broker: '#17a2b8',
  disk: '#8c564b',
  store: '#a0522d',
  clock: '#7f3fbf',
  model: '#e377c2',
  device: '#777777',
};
const otherColour = '#888888';

const width = 1280;
const left = 120;
const right = 24;
const plotWidth = width - left - right;
const lineHeight = 15;
const barHeight = 14;
const labelledMax = 60;

const style = `
.bg{fill:#ffffff}.ink{fill:#1b1f23}.soft{fill:#57606a}.line{stroke:#d0d7de}.lane{fill:#f6f8fa}.gap{fill:#afb8c1;fill-opacity:.35}.life{fill:#c9d1d9}
.bad{fill:#c1121f}.badline{stroke:#c1121f}.step{stroke:#57606a}.end{stroke:#57606a}
text{font:12px system-ui,"Segoe UI","Noto Sans","Noto Sans CJK SC",sans-serif}.name{font-weight:600}.small{font-size:11px}
.label{paint-order:stroke;stroke:#f6f8fa;stroke-width:3px}
.title{font-size:16px;font-weight:600}
@media (prefers-color-scheme:dark){.bg{fill:#0d1117}.ink{fill:#e6edf3}.soft{fill:#9aa4af}.line{stroke:#30363d}
.label{stroke:#161b22}.lane{fill:#161b22}.gap{fill:#6e7681;fill-opacity:.35}.life{fill:#484f58}.bad{fill:#ff7b72}.badline{stroke:#ff7b72}.step{stroke:#9aa4af}.end{stroke:#9aa4af}}
`.trim();

type ScaleX = (atMs: number) => number;
interface Lane {
  svg: string;
  height: number;
}

const isState = (word: string): word is MachineStateName => Object.hasOwn(phaseColours, word);
const familyOf = (text: string) => text.split(/[.\s]/)[0] ?? '';
const colourOf = (text: string) => familyColours[familyOf(text)] ?? otherColour;

/** An SVG document of the run; it must have been made with `trace`, else it has no marks to show. */
export function timelineSvg(result: SeedResult): string {
  const { marks, endedAtMs } = result;
  const spanMs = Math.max(1, endedAtMs, ...marks.map((mark) => mark.atMs));
  const times = marks.map(({ atMs }) => atMs);
  const { x, ticks, breaks } = timeScale(times, spanMs, left, plotWidth);
  const names = nodesOf(marks);
  const withLabels = marks.filter(({ kind }) => kind === 'fault' || kind === 'cut').length <= labelledMax;

  const parts: string[] = [];
  const verdict = result.violation === null ? 'every invariant held' : 'an invariant broke';
  parts.push(`<text class="ink title" x="16" y="26">Seed ${result.seed}: ${verdict}</text>`);
  const about = `${result.devices} ${result.devices === 1 ? 'device' : 'devices'}, ${timeText(spanMs)} of virtual time, ${result.operations} operations, ${result.faults.length} faults and steps, trace ${result.traceSha256.slice(0, 12)}`;
  parts.push(`<text class="soft" x="16" y="45">${escapeXml(about)}</text>`);
  let y = 58;
  for (const line of result.violation === null ? [] : violationLines(result.violation)) {
    y += lineHeight;
    parts.push(`<text class="bad name" x="16" y="${y}">${escapeXml(line)}</text>`);
  }
  const top = y + 30;
  y = top;
  const grounds: string[] = [];
  const lanes: string[] = [];
  for (const name of names) {
    const ofNode = marks.filter((mark) => mark.node === name && mark.kind !== 'violation');
    const lane = name === 'world' ? worldLane(ofNode, x) : nodeLane(ofNode, x, spanMs, withLabels);
    grounds.push(`<rect class="lane" x="8" y="${y}" width="${width - 16}" height="${lane.height}" rx="4"/>`);
    lanes.push(`<g transform="translate(0 ${y})"><title>${escapeXml(name)}</title>`);
    lanes.push(`<text class="ink name" x="16" y="${lineHeight + 4}">${escapeXml(shortened(name))}</text>`);
    lanes.push(lane.svg, '</g>');
    y += lane.height + 6;
  }
  const bottom = y;
  parts.push(...grounds);
  for (const { fromX, toX, ms } of breaks) {
    const look = `class="gap" rx="0"`;
    parts.push(
      rect(fromX, toX, top - 6, bottom - top + 6, look, `drawn short: ${timeText(ms)} without an event`),
    );
  }
  for (const { x: atX, text } of ticks) {
    const at = atX.toFixed(1);
    parts.push(`<line class="line" x1="${at}" x2="${at}" y1="${top - 6}" y2="${bottom}"/>`);
    const anchor = atX > width - 50 ? 'end' : 'middle';
    parts.push(`<text class="soft small" x="${at}" y="${top - 10}" text-anchor="${anchor}">${text}</text>`);
  }
  parts.push(...lanes);
  const broke = marks.find(({ kind }) => kind === 'violation');
  if (result.violation !== null) {
    const at = x(broke?.atMs ?? endedAtMs).toFixed(1);
    parts.push(
      `<g><title>${escapeXml(result.violation)}</title><line class="badline" stroke-width="2" x1="${at}" x2="${at}" y1="${top - 6}" y2="${bottom}"/></g>`,
    );
  }
  const legend = legendOf(marks, result.violation !== null, breaks.length > 0, bottom + 20);
  parts.push(legend.svg);
  const height = bottom + 20 + legend.height;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">`,
    `<title>${escapeXml(`Seed ${result.seed}: ${verdict}`)}</title>`,
    `<style>${style}</style>`,
    `<rect class="bg" width="${width}" height="${height}"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

/** Without the lines of a stack, which the whole text has. */
function violationLines(violation: string): string[] {
  const words = violation.split('\n').filter((line) => !/^\s+at /.test(line));
  return wrapped(words.join('\n'), 170).slice(0, 6);
}

/** The registry first, then devices by name, the world last. */
function nodesOf(marks: readonly Mark[]): string[] {
  const rank = (name: string) => (name === 'world' ? 2 : name.startsWith('registry') ? 0 : 1);
  const names = [...new Set([...marks.map((mark) => mark.node), 'world'])];
  return names.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b, 'en', { numeric: true }));
}

const shortened = (name: string) => (name.length <= 15 ? name : `${name.slice(0, 14)}…`);

/** Marks with a line down to their place and a label in the first row that has room for it. */
function labelled(marks: readonly Mark[], x: ScaleX, from: number, className: string): Lane {
  const boxes: Box[] = marks.map((mark) => {
    const text = mark.text.length > 44 ? `${mark.text.slice(0, 43)}…` : mark.text;
    return { at: x(mark.atMs), width: textWidth(text, 11) + 8, text };
  });
  const rows = placed(boxes, left, width - right);
  const height = rows.count * lineHeight;
  const lines: string[] = [];
  const texts = rows.boxes.map(({ at, row, text, anchorEnd }, index) => {
    const mark = marks[index];
    const y = from + row * lineHeight + 11;
    const title = mark === undefined ? text : `${timeText(mark.atMs)} ${mark.text}`;
    const anchor = anchorEnd ? ' text-anchor="end"' : '';
    const atX = at.toFixed(1);
    lines.push(
      `<line class="step" x1="${atX}" x2="${atX}" y1="${from}" y2="${y + 2}" stroke-opacity="0.35"/>`,
    );
    const textX = (at + (anchorEnd ? -3 : 3)).toFixed(1);
    return `<text class="${className} small label" x="${textX}" y="${y}"${anchor}><title>${escapeXml(title)}</title>${escapeXml(text)}</text>`;
  });
  const svg = [...lines, ...texts].join('\n');
  return { svg, height };
}

function worldLane(marks: readonly Mark[], x: ScaleX): Lane {
  const { svg, height } = labelled(marks, x, 6, 'ink');
  return { svg, height: Math.max(height, lineHeight) + 14 };
}

/** Times in which the node had power: from a boot to the next cut, or to the end. */
function livesOf(marks: readonly Mark[], spanMs: number): { fromMs: number; toMs: number; text: string }[] {
  const lives: { fromMs: number; toMs: number; text: string }[] = [];
  let open: { fromMs: number; text: string } | null = null;
  for (const { atMs, kind, text } of marks) {
    if (kind !== 'boot' && kind !== 'cut') continue;
    if (open !== null) lives.push({ ...open, toMs: atMs });
    open = kind === 'boot' ? { fromMs: atMs, text } : null;
  }
  if (open !== null) lives.push({ ...open, toMs: spanMs });
  return lives;
}

/** `alpha staging`: the last word that is a state; what stands before it is the model. */
function phaseOf(text: string): { model: string; state: MachineStateName } | null {
  const words = text.split(/\s+/);
  const at = words.findLastIndex(isState);
  const state = words[at];
  if (state === undefined || !isState(state)) return null;
  return {
    model: words
      .slice(0, at)
      .filter((word) => !isState(word))
      .join(' '),
    state,
  };
}

function rect(fromX: number, toX: number, y: number, height: number, look: string, title: string): string {
  const w = Math.max(1, toX - fromX);
  return `<rect x="${fromX.toFixed(1)}" y="${y}" width="${w.toFixed(1)}" height="${height}" ${look}><title>${escapeXml(title)}</title></rect>`;
}

function nodeLane(marks: readonly Mark[], x: ScaleX, spanMs: number, withLabels: boolean): Lane {
  const parts: string[] = [];
  const lives = livesOf(marks, spanMs);
  const lifeY = 8;
  for (const { fromMs, toMs, text } of lives) {
    const title = `${text}, ${timeText(fromMs)} to ${timeText(toMs)}`;
    parts.push(rect(x(fromMs), x(toMs), lifeY, barHeight, 'class="life" rx="2"', title));
  }
  const wrong = marks.filter(({ kind }) => kind === 'fault' || kind === 'cut');
  for (const mark of wrong) {
    const at = x(mark.atMs).toFixed(1);
    const colour = mark.kind === 'cut' ? familyColours['cut'] : colourOf(mark.text);
    const thick = mark.kind === 'cut' ? 2.5 : 1.5;
    parts.push(
      `<line x1="${at}" x2="${at}" y1="${lifeY - 4}" y2="${lifeY + barHeight + 4}" stroke="${colour}" stroke-width="${thick}"><title>${escapeXml(`${timeText(mark.atMs)} ${mark.text}`)}</title></line>`,
    );
  }
  let y = lifeY + barHeight + 6;
  const models = new Map<string, { atMs: number; state: MachineStateName }[]>();
  for (const { atMs, kind, text } of marks) {
    const phase = kind === 'phase' ? phaseOf(text) : null;
    if (phase !== null)
      models.set(phase.model, [...(models.get(phase.model) ?? []), { atMs, state: phase.state }]);
  }
  for (const [model, phases] of models) {
    parts.push(
      `<text class="soft small" x="${left - 6}" y="${y + 9}" text-anchor="end">${escapeXml(shortened(model))}</text>`,
    );
    for (const [index, { atMs, state }] of phases.entries()) {
      const toMs = phases[index + 1]?.atMs ?? spanMs;
      // What has no power does nothing, whatever its journal says.
      for (const life of lives.length === 0 ? [{ fromMs: 0, toMs: spanMs }] : lives) {
        const [from, to] = [Math.max(atMs, life.fromMs), Math.min(toMs, life.toMs)];
        if (to < from || (to === from && toMs > atMs)) continue;
        const look = `fill="${phaseColours[state]}"`;
        parts.push(rect(x(from), x(to), y, 10, look, `${model} ${state}, from ${timeText(atMs)}`));
      }
    }
    y += 13;
  }
  const told = marks.filter(
    ({ kind }) =>
      kind === 'step' || kind === 'rollout' || (withLabels && (kind === 'fault' || kind === 'cut')),
  );
  const labels = labelled(told, x, y, 'soft');
  parts.push(labels.svg);
  return { svg: parts.join('\n'), height: Math.max(y + labels.height, lineHeight + 8) + 6 };
}

/** Only what the picture shows. */
function legendOf(marks: readonly Mark[], broke: boolean, isShortened: boolean, top: number): Lane {
  const states = new Set(
    marks.flatMap(({ kind, text }) => (kind === 'phase' ? (phaseOf(text)?.state ?? []) : [])),
  );
  const families = new Set(marks.filter(({ kind }) => kind === 'fault').map(({ text }) => familyOf(text)));
  if (marks.some(({ kind }) => kind === 'cut')) families.add('cut');
  const entries: { text: string; look: string; isLine: boolean }[] = [
    { text: 'has power', look: 'class="life"', isLine: false },
    ...(isShortened ? [{ text: 'time drawn short', look: 'class="gap"', isLine: false }] : []),
    ...Object.entries(phaseColours)
      .filter(([state]) => isState(state) && states.has(state))
      .map(([text, colour]) => ({ text, look: `fill="${colour}"`, isLine: false })),
    ...[...families].sort().map((family) => ({
      text: family === 'cut' ? 'power cut' : `fault: ${family}`,
      look: `fill="${familyColours[family] ?? otherColour}"`,
      isLine: true,
    })),
    ...(broke ? [{ text: 'the invariant broke', look: 'class="bad"', isLine: true }] : []),
  ];
  let [atX, atY] = [16, top];
  const parts = entries.map(({ text, look, isLine }) => {
    const needed = 22 + textWidth(text, 12) + 16;
    if (atX + needed > width - right) [atX, atY] = [16, atY + 20];
    const shape = isLine
      ? `<rect x="${atX + 5}" y="${atY - 2}" width="3" height="14" ${look}/>`
      : `<rect x="${atX}" y="${atY}" width="14" height="10" ${look}/>`;
    const part = `${shape}<text class="ink" x="${atX + 20}" y="${atY + 10}">${escapeXml(text)}</text>`;
    atX += needed;
    return part;
  });
  return { svg: parts.join('\n'), height: atY - top + 26 };
}
