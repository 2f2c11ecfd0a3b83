/** The rows of a file of answers for `eepo verify --jsonl`. */
import { InvalidFileError } from '../errors.js';
import { readJsonLines } from '../tasks/data/read-text.js';
import { columnValue, type PlacedRow, type Row, shown } from '../tasks/data/rows.js';
import type { VerifyItem, VerifyOptions } from '../verify/judge.js';

/** Which columns a row has; those not named are looked for under their usual names. */
export interface Columns {
  predictionColumn?: string;
  responseColumn?: string;
  goldColumn?: string;
  expectedColumn?: string;
  /** Column whose values are the groups of the table. */
  by?: string;
  /** `column=value`: other rows are left out; `column=` takes those without a value. */
  where: readonly string[];
}

/** A row that is to be judged. */
export interface Case {
  /** `file:line`. */
  where: string;
  group: string;
  item: VerifyItem;
  expected: boolean | null;
}

/** Names of columns that are looked for where none is given. */
export const USUAL = {
  response: ['response', 'completion', 'output', 'generation'],
  prediction: ['pred', 'prediction', 'predicted'],
  gold: ['gold', 'answer', 'answers', 'ground_truth', 'target', 'expected_answer'],
  expected: ['equal', 'is_correct', 'correct', 'label'],
};

/**
 * Reads every row. A whole response is preferred to a prediction, so that extraction is judged too; a row whose column
 * `kind` says `response` has a response where others have a prediction.
 *
 * @throws InvalidFileError naming file and line
 */
export async function readCases(path: string, columns: Columns, options: VerifyOptions): Promise<Case[]> {
  const filters = columns.where.map(parseFilter);
  const cases: Case[] = [];
  for await (const placed of readJsonLines({ path, name: path })) {
    if (filters.every((matches) => matches(placed.row))) cases.push(caseOf(placed, columns, options));
  }
  if (cases.length === 0) throw new InvalidFileError(`${path}: no row to judge${filters.length > 0 ? ' matches' : ''}`);
  return cases;
}

function parseFilter(text: string): (row: Row) => boolean {
  const at = text.indexOf('=');
  if (at <= 0) throw new InvalidFileError(`--where ${text}: expected column=value`);
  const [column, value] = [text.slice(0, at), text.slice(at + 1)];
  return (row) => String(columnValue(row, column) ?? '') === value;
}

function caseOf({ row, where }: PlacedRow, columns: Columns, options: VerifyOptions): Case {
  const gold = goldOf(row, columns.goldColumn, where);
  const expected = find(row, columns.expectedColumn, USUAL.expected, where);
  return {
    where,
    group: columns.by === undefined ? 'all' : textOf(columnValue(row, columns.by) ?? '-'),
    item: { ...answerOf(row, columns, where), gold, options },
    expected: expected === undefined ? null : booleanOf(expected.value, `${where}: "${expected.name}"`),
  };
}

function answerOf(row: Row, columns: Columns, where: string): Pick<VerifyItem, 'prediction' | 'response'> {
  const { predictionColumn, responseColumn } = columns;
  const response =
    predictionColumn === undefined || responseColumn !== undefined
      ? find(row, responseColumn, USUAL.response, where)
      : undefined;
  if (response !== undefined) return { response: answerText(response, where) };
  const prediction = find(row, predictionColumn, USUAL.prediction, where);
  if (prediction === undefined) {
    throw new InvalidFileError(
      `${where}: no column ${quoted([...USUAL.response, ...USUAL.prediction])}; the row has ` +
        `${Object.keys(row).join(', ')}. Name it with --prediction-column or --response-column`,
    );
  }
  const text = answerText(prediction, where);
  return row.kind === 'response' ? { response: text } : { prediction: text };
}

function goldOf(row: Row, column: string | undefined, where: string): string | string[] {
  const gold = find(row, column, USUAL.gold, where);
  if (gold === undefined) {
    throw new InvalidFileError(
      `${where}: no column ${quoted(USUAL.gold)}; the row has ${Object.keys(row).join(', ')}. Name it with --gold-column`,
    );
  }
  const { name, value } = gold;
  if (Array.isArray(value) && value.length > 0 && value.every(isAnswer)) return value.map(String);
  if (isAnswer(value)) return String(value);
  throw new InvalidFileError(`${where}: "${name}" must be a text, a number or a list of these, got ${shown(value)}`);
}

interface Found {
  name: string;
  value: unknown;
}

/** The named column, which must be there, or the first of the usual ones. */
function find(row: Row, named: string | undefined, usual: readonly string[], where: string): Found | undefined {
  for (const name of named === undefined ? usual : [named]) {
    const value = columnValue(row, name);
    if (value !== undefined) return { name, value };
  }
  if (named === undefined) return undefined;
  throw new InvalidFileError(`${where}: no column "${named}"; the row has ${Object.keys(row).join(', ')}`);
}

const isAnswer = (value: unknown): boolean =>
  typeof value === 'string' || (typeof value === 'number' && Number.isFinite(value));

function answerText({ name, value }: Found, where: string): string {
  // A sampler writes null where it found no answer.
  if (value === null) return '';
  if (isAnswer(value)) return String(value);
  throw new InvalidFileError(`${where}: "${name}" must be a text or a number, got ${shown(value)}`);
}

/** Null where nobody knows. */
function booleanOf(value: unknown, what: string): boolean | null {
  if (value === null || typeof value === 'boolean') return value;
  if (value === 0 || value === 1) return value === 1;
  throw new InvalidFileError(`${what} must be true or false, got ${shown(value)}`);
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : shown(value));
const quoted = (names: readonly string[]): string => names.map((name) => `"${name}"`).join(' or ');
