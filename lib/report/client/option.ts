/**
 * A figure as an option of Apache ECharts. Runs in Node and, copied into the page, in a browser: it imports types only.
 * Text of a run (names, labels) reaches the chart as text, never as markup.
 */
import type { FigureAxis, FigureData, FigureSeries } from '../figure.js';

export interface ChartLook {
  /** Pixels. */
  width: number;
  dark: boolean;
  /** Window of the moving average, in points; 1: none. Only where the figure allows it. */
  window: number;
  /** Draw title and subtitle into the picture; the page has them beside it. */
  titled: boolean;
  font: string;
}

type Point = readonly [number, number];
type Item = [number, number | '-'];

/** One colour a run, told apart by colour-blind readers too (after Okabe and Ito), for light and dark paper. */
const COLORS: Record<'light' | 'dark', readonly string[]> = {
  light: ['#0b62a8', '#c8501e', '#0a8a68', '#a3458c', '#a67c00', '#4d5bce', '#7a4a21', '#2f8fb8', '#5f7d1f', '#b3313f'],
  dark: ['#5cb0f2', '#f0905e', '#4fcfa8', '#e08fcb', '#e3bd4f', '#98a2ff', '#c99a6c', '#7fd3f0', '#add069', '#f2848f'],
};
/** Of phases, which must not be taken for runs: colour -2, -3, ... */
const TINTS: Record<'light' | 'dark', readonly string[]> = {
  light: ['#8db4dc', '#f0b183', '#bcd4ea', '#a9cfa4', '#d3c3e2', '#8c97a8', '#d9dce1'],
  dark: ['#5f8fbf', '#b97c50', '#3e6488', '#6d9a68', '#84719b', '#78849a', '#4a5058'],
};
const NEUTRAL = { light: '#8a8f98', dark: '#8f959e' };
const INK = {
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

/** Centred moving average of y over `window` points; fewer at the ends, so that the line begins and ends where it does. */
export function movingAverage(points: readonly Point[], window: number): [number, number][] {
  const half = Math.floor(window / 2);
  return points.map(([x], i) => {
    const reach = Math.min(half, i, points.length - 1 - i);
    let sum = 0;
    for (let j = i - reach; j <= i + reach; j += 1) sum += (points[j] as Point)[1];
    return [x, sum / (2 * reach + 1)];
  });
}

/** Window that a figure begins with: none for short runs. */
export function defaultWindow(figure: FigureData): number {
  const longest = Math.max(0, ...figure.series.map(({ points }) => points.length));
  return figure.smooth !== true || longest < 30 ? 1 : Math.max(5, 2 * Math.floor(longest / 30) + 1);
}

/** The option that draws a figure. */
export function chartOption(figure: FigureData, look: ChartLook): Record<string, unknown> {
  return figure.kind === 'bars' ? barOption(figure, look) : lineOption(figure, look);
}

/** Pixels that a figure should be high at a width. */
export function figureHeight(figure: FigureData, look: Pick<ChartLook, 'width' | 'titled'>): number {
  const head = headHeight(figure, look);
  if (figure.kind === 'bars') return head + 64 + 34 * (figure.x.categories?.length ?? 1);
  return head + Math.round(Math.min(300, Math.max(210, look.width * 0.46)));
}

function lineOption(figure: FigureData, look: ChartLook): Record<string, unknown> {
  const uncertain = figure.series.filter(({ intervals, uncertainty }) => intervals && uncertainty !== 'band');
  const series = figure.series.flatMap((one) =>
    lineSeries(figure, one, look, uncertain.indexOf(one) - (uncertain.length - 1) / 2),
  );
  const references = referenceSeries(figure, look);
  return {
    ...frame(figure, look),
    xAxis: { ...axis(figure.x, look), ...xAxisExtras(figure) },
    yAxis: { ...axis(figure.y, look), ...yAxisExtras(figure.y, figure, look) },
    series: references === null ? series : [...series, references],
  };
}

/** Title, legend, room and tooltip: what all figures share. */
function frame(figure: FigureData, look: ChartLook): Record<string, unknown> {
  const ink = INK[look.dark ? 'dark' : 'light'];
  const rows = legendRows(figure, look.width);
  const title = look.titled ? titleHeight(figure) : 0;
  return {
    animation: false,
    backgroundColor: look.titled ? ink.paper : 'transparent',
    textStyle: { fontFamily: look.font, color: ink.text },
    ...(look.titled
      ? {
          title: {
            text: figure.title,
            ...(figure.paper === undefined ? {} : { subtext: `cf. ${figure.paper} of the paper` }),
            left: 12,
            top: 10,
            itemGap: 4,
            textStyle: { fontSize: 15, fontWeight: 600, color: ink.text },
            subtextStyle: { fontSize: 11, color: ink.faint },
          },
        }
      : {}),
    legend:
      rows === 0
        ? { show: false }
        : {
            data: legendEntries(figure),
            left: look.titled ? 12 : 0,
            right: 8,
            top: title,
            // so that the letters, which are higher than the strokes, are not cut off
            padding: [7, 0, 0, 0],
            itemGap: 14,
            itemWidth: 24,
            itemHeight: figure.kind === 'bars' ? 9 : 3,
            textStyle: { fontSize: 12, color: ink.text },
            inactiveColor: ink.axis,
          },
    grid: {
      left: look.titled ? 14 : 2,
      right: 22,
      top: headHeight(figure, look) + (figure.kind === 'bars' ? 0 : 24),
      bottom: 26,
      outerBoundsMode: 'same',
      outerBoundsContain: 'axisLabel',
    },
    tooltip: {
      trigger: figure.kind === 'bars' ? 'item' : 'axis',
      confine: true,
      transitionDuration: 0,
      backgroundColor: ink.paper,
      borderColor: ink.axis,
      textStyle: { fontSize: 12, color: ink.text },
      axisPointer: { type: 'line', lineStyle: { color: ink.axis } },
      formatter: (items: unknown) => tooltip(figure, items, look),
    },
  };
}

const LEGEND_ROW = 20;
const titleHeight = (figure: FigureData): number => (figure.paper === undefined ? 38 : 56);

function headHeight(figure: FigureData, look: Pick<ChartLook, 'width' | 'titled'>): number {
  const rows = legendRows(figure, look.width);
  return (look.titled ? titleHeight(figure) : 0) + (rows === 0 ? 0 : rows * LEGEND_ROW + 4);
}

const legendNames = (figure: FigureData): string[] => [...new Set(figure.series.map(({ name }) => name))];

/** A stroke of each name's colour, whole or broken as its line is. */
function legendEntries(figure: FigureData): { name: string; icon: string }[] {
  return legendNames(figure).map((name) => {
    const { dash = 'solid' } = figure.series.find((one) => one.name === name) ?? {};
    if (figure.kind === 'bars' || dash === 'solid') return { name, icon: 'rect' };
    const strokes = dash === 'dashed' ? [0, 9, 18] : [0, 5, 10, 15, 20];
    const length = dash === 'dashed' ? 6 : 2;
    return { name, icon: `path://${strokes.map((x) => `M${x} 0h${length}v3h-${length}z`).join('')}` };
  });
}

/** How many rows the legend takes, by the usual width of letters. */
function legendRows(figure: FigureData, width: number): number {
  const names = legendNames(figure);
  if (!(figure.legend ?? names.length > 1)) return 0;
  let rows = 1;
  let used = 0;
  for (const name of names) {
    const needed = 24 + 5 + 14 + name.length * 6.9;
    if (used > 0 && used + needed > width - 16) {
      rows += 1;
      used = 0;
    }
    used += needed;
  }
  return rows;
}

function axis(of: FigureAxis, { dark }: ChartLook): Record<string, unknown> {
  const ink = INK[dark ? 'dark' : 'light'];
  return {
    type: of.scale === 'log' ? 'log' : 'value',
    name: of.label,
    nameTextStyle: { color: ink.faint, fontSize: 12 },
    axisLine: { show: true, lineStyle: { color: ink.axis } },
    axisTick: { show: false },
    axisLabel: {
      color: ink.faint,
      fontSize: 11,
      hideOverlap: true,
      formatter: (v: number) => formatNumber(v, of.format),
    },
    splitLine: { lineStyle: { color: ink.grid } },
    ...(of.min === undefined ? {} : { min: of.min }),
    ...(of.max === undefined ? {} : { max: of.max }),
  };
}

function xAxisExtras({ x: of, series }: FigureData): Record<string, unknown> {
  const base = { nameLocation: 'middle', nameGap: 26, splitLine: { show: false } };
  const { categories } = of;
  if (categories === undefined) {
    const xs = series.flatMap(({ points, xIntervals }) => [
      ...points.map(([at]) => at),
      ...(xIntervals ?? []).flatMap((interval) => interval ?? []),
    ]);
    const ends = xs.length === 0 ? {} : { min: of.min ?? Math.min(...xs), max: of.max ?? Math.max(...xs) };
    return {
      ...base,
      ...ends,
      ...(of.scale === 'log' ? { logBase: 2 } : {}),
      ...(of.format === 'integer' ? { minInterval: 1 } : {}),
    };
  }
  return {
    ...base,
    min: -0.5,
    max: categories.length - 0.5,
    interval: 0.5,
    axisLabel: {
      fontSize: 11,
      showMinLabel: false,
      showMaxLabel: false,
      formatter: (v: number) => (Number.isInteger(v) ? (categories[v] ?? '') : ''),
    },
  };
}

function yAxisExtras(of: FigureAxis, figure: FigureData, { dark }: ChartLook): Record<string, unknown> {
  const ys = figure.series.flatMap(({ points }) => points.map(([, y]) => y));
  return {
    // Powers of ten leave most of the paper empty where the data span less than two of them.
    ...(of.scale === 'log' ? { logBase: Math.max(...ys) < 64 * Math.min(...ys) ? 2 : 10 } : {}),
    nameLocation: 'end',
    nameGap: 8,
    nameTextStyle: { color: INK[dark ? 'dark' : 'light'].faint, fontSize: 12, align: 'left', padding: 0 },
    axisLine: { show: false },
    scale: of.min === undefined,
    splitNumber: 4,
  };
}

/** The line; under it the values as measured where it is smoothed; its intervals. */
function lineSeries(figure: FigureData, one: FigureSeries, look: ChartLook, place: number): Record<string, unknown>[] {
  const color = runColor(one.color, look.dark);
  const window = figure.smooth === true ? Math.min(look.window, one.points.length) : 1;
  const thick = window > 1 ? movingAverage(one.points, window) : one.points;
  const dots = one.dots ?? (one.intervals !== undefined || one.line === false || one.points.length < 12);
  const line = one.line !== false;
  const shared = { type: 'line', name: one.name, color, silent: true, tooltip: { show: false }, z: 2 };
  const extras: Record<string, unknown>[] = [];
  if (window > 1) {
    extras.push({
      ...shared,
      data: one.points,
      symbol: 'none',
      lineStyle: { width: 1, opacity: 0.28, type: 'solid' },
      z: 1,
    });
  }
  if (one.intervals !== undefined && one.uncertainty === 'band') extras.push(...band(one, shared));
  else if (one.intervals !== undefined)
    extras.push(errorBars(verticalBars(one, aside(figure, place)), [7, 1.5], shared));
  if (one.xIntervals !== undefined) extras.push(errorBars(horizontalBars(one), [1.5, 7], shared));
  const main = {
    type: 'line',
    name: one.name,
    color,
    data: thick,
    symbol: dots ? 'circle' : 'none',
    symbolSize: 7,
    lineStyle: { width: line ? 2 : 0, type: one.dash ?? 'solid', opacity: line ? 1 : 0 },
    itemStyle: { borderWidth: 0 },
    emphasis: { disabled: true },
    z: 3,
  };
  // The first of a name gives the legend its look.
  return [main, ...extras];
}

/** Moves the bars of several series beside each other, by `place` times a little, where dots are at the same x. */
function aside({ x, series }: FigureData, place: number): (at: number) => number {
  const xs = series.flatMap(({ points }) => points.map(([at]) => at));
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  if (x.categories !== undefined) return (at) => at;
  if (x.scale === 'log') return (at) => at * (high / low) ** (0.012 * place);
  return (at) => at + (high - low) * 0.012 * place;
}

function verticalBars({ points, intervals = [] }: FigureSeries, moved: (x: number) => number): Item[] {
  return points.flatMap(([at], i): Item[] => {
    const x = moved(at);
    const interval = intervals[i];
    return interval
      ? [
          [x, interval[0]],
          [x, interval[1]],
          [x, '-'],
        ]
      : [];
  });
}

function horizontalBars({ points, xIntervals = [] }: FigureSeries): Item[] {
  return points.flatMap(([x, y], i): Item[] => {
    const interval = xIntervals[i];
    return interval
      ? [
          [interval[0], y],
          [interval[1], y],
          [x, '-'],
        ]
      : [];
  });
}

function errorBars(data: Item[], cap: [number, number], shared: Record<string, unknown>): Record<string, unknown> {
  return {
    ...shared,
    data,
    connectNulls: false,
    // those at the ends of the axis are moved beyond it
    clip: false,
    symbol: 'rect',
    symbolSize: cap,
    showAllSymbol: true,
    lineStyle: { width: 1.5, opacity: 0.75, type: 'solid' },
    itemStyle: { opacity: 0.75, borderWidth: 0 },
  };
}

/** A line of the lower ends, not seen, with the area up to the upper ends on it. */
function band({ name, color, dash, points, intervals = [] }: FigureSeries, shared: Record<string, unknown>) {
  const low = points.map(([x, y], i): Point => [x, intervals[i]?.[0] ?? y]);
  const height = points.map(([x], i): Point => [x, (intervals[i]?.[1] ?? 0) - (intervals[i]?.[0] ?? 0)]);
  const line = { ...shared, symbol: 'none', lineStyle: { opacity: 0 }, stackStrategy: 'all', z: 1 };
  const stack = `band ${color} ${dash ?? 'solid'} ${name}`;
  return [
    { ...line, stack, data: low },
    { ...line, stack, data: height, areaStyle: { opacity: 0.16 } },
  ];
}

/** Horizontal lines that belong to no series. */
function referenceSeries({ references = [] }: FigureData, { dark }: ChartLook): Record<string, unknown> | null {
  if (references.length === 0) return null;
  const ink = INK[dark ? 'dark' : 'light'];
  return {
    type: 'line',
    data: [],
    silent: true,
    markLine: {
      silent: true,
      symbol: 'none',
      animation: false,
      lineStyle: { color: ink.faint, type: [2, 4], width: 1 },
      data: references.map(({ label, value }) => ({
        yAxis: value,
        label: {
          // a function: a text would be read as a template
          formatter: () => label,
          position: 'insideEndTop',
          color: ink.faint,
          fontSize: 11,
        },
      })),
    },
  };
}

function barOption(figure: FigureData, look: ChartLook): Record<string, unknown> {
  const { categories = [] } = figure.x;
  const ink = INK[look.dark ? 'dark' : 'light'];
  return {
    ...frame(figure, look),
    xAxis: { ...axis(figure.y, look), nameLocation: 'middle', nameGap: 26, min: 0 },
    yAxis: {
      type: 'category',
      inverse: true,
      data: categories,
      axisTick: { show: false },
      axisLine: { show: false },
      axisLabel: { color: ink.text, fontSize: 12, width: Math.min(180, look.width * 0.3), overflow: 'truncate' },
    },
    series: figure.series.map(({ name, color, points }) => ({
      type: 'bar',
      name,
      stack: 'all',
      color: runColor(color, look.dark),
      barMaxWidth: 22,
      emphasis: { disabled: true },
      itemStyle: { borderColor: ink.paper, borderWidth: 1 },
      data: categories.map((_, i) => points.find(([x]) => x === i)?.[1] ?? 0),
    })),
  };
}

interface TooltipItem {
  seriesName?: string;
  seriesIndex?: number;
  name?: string;
  value?: number | [number, number];
  axisValue?: number;
  color?: string;
}

/** What a figure says where a reader points at it. Every text is escaped. */
function tooltip(figure: FigureData, items: unknown, look: ChartLook): string {
  const list = (Array.isArray(items) ? items : [items]) as TooltipItem[];
  const ink = INK[look.dark ? 'dark' : 'light'];
  const first = list[0];
  if (first === undefined) return '';
  const bars = figure.kind === 'bars';
  const shown = list.filter(({ seriesName }) => seriesName !== undefined && !/^series\0/.test(seriesName));
  const rows = shown.map(({ seriesName = '', value, color = '' }) => {
    const y = Array.isArray(value) ? value[1] : value;
    const text = typeof y === 'number' ? formatNumber(y, figure.y.format) : '';
    return (
      `<tr><td style="padding:1px 6px 1px 0"><span style="display:inline-block;width:9px;height:9px;border-radius:5px;` +
      `background:${escapeHtml(color)}"></span></td><td style="padding-right:14px">${escapeHtml(seriesName)}</td>` +
      `<td style="text-align:right;font-variant-numeric:tabular-nums">${escapeHtml(text)}</td></tr>`
    );
  });
  const at = Array.isArray(first.value) ? first.value[0] : Number(first.axisValue);
  const { categories } = figure.x;
  const head = bars
    ? (first.name ?? '')
    : categories
      ? (categories[Math.round(at)] ?? '')
      : `${figure.x.label} ${formatNumber(at, figure.x.format)}`;
  return `<div style="color:${ink.faint};margin-bottom:2px">${escapeHtml(head)}</div><table style="border-spacing:0">${rows.join('')}</table>`;
}

/** Text that may stand between tags and in attributes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
