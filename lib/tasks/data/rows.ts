/** Rows of data files, one at a time, each with the place it came from. */

/** One row: its columns by name. */
export type Row = Record<string, unknown>;

/** A row and where it stands. */
export interface PlacedRow {
  row: Row;
  /** Line of a text file, row of the others, from 1. */
  number: number;
  /** For messages: `train.jsonl:3`, `train.parquet: row 3`. */
  where: string;
}

/** Whether a value is a row: an object, no list. */
export function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * The value of a column, undefined where there is none. A name with dots is a path into structs and lists
 * (`reward_model.ground_truth`, `prompt.0.content`), unless a column has just that name.
 */
export function columnValue(row: Row, name: string): unknown {
  if (Object.hasOwn(row, name)) return row[name];
  let value: unknown = row;
  for (const key of name.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Row)[key];
  }
  return value;
}

/** The column of the row itself that a name stands for or leads through. */
export function topColumn(row: Row, name: string): string {
  return Object.hasOwn(row, name) ? name : (name.split('.')[0] as string);
}

/** A value in a message: JSON, cut off where it is long. */
export function shown(value: unknown): string {
  const text = textOf(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}

function textOf(value: unknown): string {
  // JSON has no Infinity, though 1e999 is one.
  if (typeof value === 'number') return String(value);
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    // What JSON.parse takes, JSON.stringify may not: it calls itself for every level.
    return 'a value that is nested too deeply to be shown';
  }
}
