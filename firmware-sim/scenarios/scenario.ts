// Why: what a scenario is: a simulated source of data, the recipe that learns it, and both as the files that
// `lepton train` reads. Pure. Trusts: the scenarios of this room. Must never: hold data that a seed does not repeat.

import { invariant } from '../../shared/kernel/errors.ts';

export type Cell = number | string | null;

export interface ScenarioSource {
  /**
   * The next row, in the order of the scenario's columns: numbers, texts, or null for a missing cell; with the
   * truth of the target, which is never missing. It never ends.
   */
  next(): Cell[];
}

export interface Scenario {
  name: string;
  title: string;
  titleZh: string;
  /** What is simulated, what is predicted, what a mistake costs. */
  about: string;
  task: 'classification' | 'regression' | 'forecast' | 'anomaly';
  /** As a recipe file holds it; what is not named keeps its default. */
  recipe: Record<string, unknown>;
  columns: readonly string[];
  /** The columns that hold texts, but for the target and the time. */
  texts: readonly string[];
  /** Rows that teach the recipe enough and are learned in seconds. */
  rows: number;
  /** What any model has to beat. */
  naive: {
    about: string;
    /** From the row that the prediction is made at; null where it has none. */
    answer(row: readonly Cell[]): Cell;
  };
  /** The target's value that is looked for; null where the target is a quantity. */
  positive: number | string | null;
  source(seed: number): ScenarioSource;
}

/** Texts of a CSV file after RFC 4180: the names of the columns, then `rows` lines, each with its line feed. */
export function* scenarioCsv(scenario: Scenario, rows: number, seed: number): Iterable<string> {
  yield csvLine(scenario.columns);
  const source = scenario.source(seed);
  for (let row = 0; row < rows; row += 1) yield csvLine(source.next());
}

function csvLine(cells: readonly Cell[]): string {
  return `${cells.map(csvCell).join(',')}\n`;
}

function csvCell(cell: Cell): string {
  if (cell === null) return '';
  const text = String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const commentColumns = 100;

/** The scenario's recipe as YAML with comments that say what it is. */
export function recipeYaml(scenario: Scenario): string {
  const { name, title, titleZh, about, naive, recipe } = scenario;
  const comments = [
    `${title} (${titleZh})`,
    about,
    `To beat: ${naive.about}.`,
    `Data: lepton-sim scenario data ${name} --out ${name}.csv`,
  ];
  const keys = Object.entries(recipe).map(([key, value]) => `${key}: ${yamlValue(key, value)}`);
  return `${[...comments.flatMap(commentLines), '', ...keys].join('\n')}\n`;
}

function commentLines(text: string): string[] {
  const lines: string[] = [];
  let line = '#';
  for (const word of text.split(/\s+/)) {
    if (line.length + 1 + word.length > commentColumns && line !== '#') {
      lines.push(line);
      line = '#';
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}

/** Numbers, truth values, null, texts and lists of them; a JSON string is a double-quoted one of YAML. */
function yamlValue(key: string, value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((one) => yamlValue(key, one)).join(', ')}]`;
  if (typeof value === 'string') return JSON.stringify(value);
  const plain = value === null || typeof value === 'boolean' || Number.isFinite(value);
  invariant(plain, `the recipe's ${key} is nothing that a line of YAML holds`);
  return String(value);
}
