/** Colours, numbers and text of figures and pages. Runs in Node and, copied into the page, in a browser: imports types only. */
import type { FigureAxis } from '../figure.js';

export interface ChartLook {
  /** Pixels. */
  width: number;
  dark: boolean;
  /** Window of the moving average, in points; 1: none. Only where the figure allows it. */
  window: number;
  /** Draw title and subtitle into the picture; the page has them beside it. */
  titled: boolean;
  font: string;
  /** Pixels of a text in the legend; default: {@link textWidth}, which is on the safe side. */
  measure?: (text: string) => number;
  /** Names in the legend that the reader has switched off. */
  hiddenNames?: readonly string[];
}

export type Point = readonly [number, number];

/** One colour a run, told apart by colour-blind readers too (after Okabe and Ito), for light and dark paper. */
const COLORS: Record<'light' | 'dark', readonly string[]> = {
  light: ['#0b62a8', '#c8501e', '#0a8a68', '#a3458c', '#a67c00', '#4d5bce', '#7a4a21', '#2f8fb8', '#5f7d1f', '#b3313f'],
  dark: ['#5cb0f2', '#f0905e', '#4fcfa8', '#e08fcb', '#e3bd4f', '#98a2ff', '#c99a6c', '#7fd3f0', '#add069', '#f2848f'],
};
/** How many runs have a colour of their own. */
export const RUN_COLORS = COLORS.light.length;
/** Of phases, which must not be taken for runs: colour -2, -3, ... */
const TINTS: Record<'light' | 'dark', readonly string[]> = {
  light: ['#8db4dc', '#f0b183', '#bcd4ea', '#a9cfa4', '#d3c3e2', '#8c97a8', '#d9dce1'],
  dark: ['#5f8fbf', '#b97c50', '#3e6488', '#6d9a68', '#84719b', '#78849a', '#4a5058'],
};
const NEUTRAL = { light: '#8a8f98', dark: '#8f959e' };
export const INK = {
  light: { text: '#3c4149', faint: '#6a707a', axis: '#b5bac2', grid: '#eceef1', paper: '#ffffff' },
  dark: { text: '#d3d7dd', faint: '#9aa1ab', axis: '#555b65', grid: '#2a2e34', paper: '#16181c' },
};

/** The colour of a run; negative numbers as in {@link FigureSeries.color}. */
export function runColor(index: number, dark: boolean): string {
  const mode = dark ? 'dark' : 'light';
  if (index === -1) return NEUTRAL[mode];
  const [colors, at] = index < 0 ? [TINTS[mode], -2 - index] : [COLORS[mode], index];
  return colors[at % colors.length] as string;
}

/** A number as people write it: few digits, and no more than tell it. */
export function formatNumber(value: number, format: FigureAxis['format'] = 'number'): string {
  if (format === 'percent') return `${Number((value * 100).toPrecision(3))}%`;
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (format === 'integer' || size >= 1e4) return size >= 1e6 ? value.toExponential(1) : String(Math.round(value));
  return size < 1e-3 ? value.toExponential(1).replace('.0e', 'e') : String(Number(value.toPrecision(4)));
}

/** Centred moving average of y over `window` points; at the ends over those of them that are there. */
export function movingAverage(points: readonly Point[], window: number): [number, number][] {
  const half = Math.floor(window / 2);
  return points.map(([x], i) => {
    const near = points.slice(Math.max(0, i - half), i + half + 1);
    return [x, near.reduce((sum, [, y]) => sum + y, 0) / near.length];
  });
}

/** Pixels that a text takes at most in a usual sans-serif font: room is kept for it where it cannot be measured. */
export function textWidth(text: string, size: number): number {
  const ems = [...text].map((c) => {
    if (/[ .,:;|!'()[\]ijltfr/-]/.test(c)) return 0.4;
    if (/[mwMWO@%]|[^\u0020-\u024f]/.test(c)) return 1;
    return /[A-Z]/.test(c) ? 0.8 : 0.64;
  });
  return size * ems.reduce((sum, em) => sum + em, 0);
}

/** Text that may stand between tags and in attributes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
