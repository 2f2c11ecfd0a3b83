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
const NEUTRAL = { light: '#8a8f98', dark: '#8f959e' };
const INK = {
  light: { text: '#3c4149', faint: '#6a707a', axis: '#b5bac2', grid: '#eceef1', paper: '#ffffff' },
  dark: { text: '#d3d7dd', faint: '#9aa1ab', axis: '#555b65', grid: '#2a2e34', paper: '#16181c' },
};

/** The colour of a run. */
export function runColor(index: number, dark: boolean): string {
  const colors = COLORS[dark ? 'dark' : 'light'];
  return index < 0 ? NEUTRAL[dark ? 'dark' : 'light'] : (colors[index % colors.length] as string);
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
  const series = figure.series.flatMap((one) => lineSeries(figure, one, look));
  const references = referenceSeries(figure, look);
  return {
    ...frame(figure, look),
    xAxis: { ...axis(figure.x, look), ...xAxisExtras(figure.x) },
    yAxis: { ...axis(figure.y, look), ...yAxisExtras(figure.y, look) },
    series: references === null ? series : [...series, references],
  };
}

/** Title, legend, room and tooltip: what all figures share. */
function frame(figure: FigureData, look: ChartLook): Record<string, unknown> {
  const ink = INK[look.dark ? 'dark' : 'light'];
  const rows = legendRows(figure, look.width);
  const title = look.titled ? titleHeight(figure) : 0;
  const names = legendNames(figure);
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
      names.length < 2
        ? { show: false }
        : {
            data: names,
            left: 8,
            right: 8,
            top: title + 2,
            padding: [0, 0],
            itemGap: 14,
            itemWidth: 26,
            itemHeight: 10,
            height: rows * LEGEND_ROW,
            textStyle: { fontSize: 12, color: ink.text },
            inactiveColor: ink.axis,
          },
    grid: {
      left: 14,
      right: 22,
      top: headHeight(figure, look) + (figure.kind === 'bars' ? 0 : 18),
      bottom: 10,
      outerBoundsMode: 'same',
      outerBoundsContain: 'all',
      outerBounds: { left: 12, right: 16, top: headHeight(figure, look), bottom: 8 },
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
  return (look.titled ? titleHeight(figure) : 0) + (rows === 0 ? 4 : rows * LEGEND_ROW + 10);
}

const legendNames = (figure: FigureData): string[] => [...new Set(figure.series.map(({ name }) => name))];

/** How many rows the legend takes, by the usual width of letters; none for a single name. */
function legendRows(figure: FigureData, width: number): number {
  const names = legendNames(figure);
  if (names.length < 2) return 0;
  let rows = 1;
  let used = 0;
  for (const name of names) {
    const needed = 26 + 5 + 14 + name.length * 6.9;
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

function xAxisExtras(of: FigureAxis): Record<string, unknown> {
  const base = { nameLocation: 'middle', nameGap: 26, splitLine: { show: false } };
  const { categories } = of;
  if (categories === undefined) {
    const ends = of.scale === 'log' ? { logBase: 2 } : { min: of.min ?? 'dataMin', max: of.max ?? 'dataMax' };
    return { ...base, ...ends, ...(of.format === 'integer' ? { minInterval: 1 } : {}) };
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

function yAxisExtras(of: FigureAxis, { dark, font: _font }: ChartLook): Record<string, unknown> {
  return {
    nameLocation: 'end',
    nameGap: 8,
    nameTextStyle: { color: INK[dark ? 'dark' : 'light'].faint, fontSize: 12, align: 'left', padding: [0, 0, 0, -6] },
    axisLine: { show: false },
    scale: of.min === undefined,
    splitNumber: 4,
  };
}

/** The line; under it the values as measured where it is smoothed; its intervals. */
function lineSeries(figure: FigureData, one: FigureSeries, look: ChartLook): Record<string, unknown>[] {
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
  else if (one.intervals !== undefined) extras.push(errorBars(verticalBars(one), [7, 1.5], shared));
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

function verticalBars({ points, intervals = [] }: FigureSeries): Item[] {
  return points.flatMap(([x], i): Item[] => {
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
