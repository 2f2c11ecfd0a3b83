/** Legends of figures: what stands in them and how much room it takes. Runs in Node and in the page. */
import type { FigureData } from '../figure.js';
import { type ChartLook, textWidth } from './look.js';

/** Between entries, and between rows. */
export const LEGEND_GAP = 14;
/** A row and the gap under it. */
export const LEGEND_ROW = 12 + LEGEND_GAP;
export const LEGEND_STROKE = 24;

/** Names of series, then of horizontal lines. */
function legendNames({ series, references = [] }: FigureData): string[] {
  const labels = references.flatMap(({ label }) => (label === '' ? [] : [label]));
  return [...new Set([...series.map(({ name }) => name), ...labels])];
}

/** A stroke of each name's colour, whole or broken as its line is. */
export function legendEntries(figure: FigureData): { name: string; icon: string }[] {
  return legendNames(figure).map((name) => {
    const { dash = 'solid' } = figure.series.find((one) => one.name === name) ?? { dash: 'dotted' };
    if (figure.kind === 'bars' || dash === 'solid') return { name, icon: 'rect' };
    const strokes = dash === 'dashed' ? [0, 9, 18] : [0, 5, 10, 15, 20];
    const length = dash === 'dashed' ? 6 : 2;
    return { name, icon: `path://${strokes.map((x) => `M${x} 0h${length}v3h-${length}z`).join('')}` };
  });
}

export type LegendLook = Pick<ChartLook, 'width' | 'titled' | 'measure'>;

const legendRoom = ({ width, titled }: LegendLook): number => width - (titled ? 12 : 0) - 8;

/** A name that is wider than the figure, without its middle: names of runs often differ at their ends. */
export function shortened(name: string, { measure = (text) => textWidth(text, 12), ...look }: LegendLook): string {
  const room = legendRoom(look) - LEGEND_STROKE - 5;
  const letters = [...name];
  for (let kept = letters.length; kept > 2; kept -= 1) {
    const half = Math.ceil(kept / 2);
    const text =
      kept === letters.length ? name : `${letters.slice(0, half).join('')}\u2026${letters.slice(half - kept).join('')}`;
    if (measure(text) <= room) return text;
  }
  return '\u2026';
}

/** How many rows the legend takes. */
export function legendRows(
  figure: FigureData,
  { width, titled, measure = (name) => textWidth(name, 12) }: LegendLook,
): number {
  const names = legendNames(figure);
  if (!(figure.legend ?? names.length > 1)) return 0;
  const room = legendRoom({ width, titled });
  let rows = 1;
  let used = 0;
  for (const name of names) {
    const needed = LEGEND_STROKE + 5 + measure(name);
    if (used > 0 && used + needed > room) {
      rows += 1;
      used = 0;
    }
    used += needed + LEGEND_GAP;
  }
  return rows;
}
