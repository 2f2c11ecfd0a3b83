/**
 * A figure as an option of Apache ECharts. Runs in Node and, copied into the page, in a browser: of other modules it
 * imports what is copied there too. Text of a run (names, labels) reaches the chart as text, never as markup.
 */
import type { FigureAxis, FigureData, FigureSeries } from '../figure.js';
import {
  LEGEND_GAP,
  LEGEND_ROW,
  LEGEND_STROKE,
  type LegendLook,
  legendEntries,
  legendRows,
  shortened,
} from './legend.js';
import {
  type ChartLook,
  escapeHtml,
  formatNumber,
  INK,
  movingAverage,
  type Point,
  RUN_COLORS,
  runColor,
} from './look.js';

type Item = [number, number | '-'];

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
export function figureHeight(figure: FigureData, look: LegendLook): number {
  const head = headHeight(figure, look);
  if (figure.kind === 'bars') return head + 64 + 34 * (figure.x.categories?.length ?? 1);
  return head + Math.round(Math.min(300, Math.max(210, look.width * 0.46)));
}

function lineOption(figure: FigureData, look: ChartLook): Record<string, unknown> {
  const uncertain = withBars(figure);
  const placeOf = (one: FigureSeries): number =>
    uncertain.includes(one) ? uncertain.indexOf(one) - (uncertain.length - 1) / 2 : 0;
  const series = figure.series.flatMap((one) => lineSeries(figure, one, look, placeOf(one)));
  return {
    ...frame(figure, look),
    xAxis: { ...axis(figure.x, look), ...xAxisExtras(figure, look) },
    yAxis: { ...axis(figure.y, look), ...yAxisExtras(figure.y, figure, look) },
    series: [...series, ...referenceSeries(figure, look)],
  };
}

/** Title, legend, room and tooltip: what all figures share. */
function frame(figure: FigureData, look: ChartLook): Record<string, unknown> {
  const ink = INK[look.dark ? 'dark' : 'light'];
  const rows = legendRows(figure, look);
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
            padding: [5, 0],
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
            ...(look.hiddenNames
              ? { selected: Object.fromEntries(look.hiddenNames.map((name) => [name, false])) }
              : {}),
            // so that the letters, which are higher than the strokes, are not cut off
            padding: [7, 0, 0, 0],
            formatter: (name: string) => shortened(name, look),
            itemGap: LEGEND_GAP,
            itemWidth: LEGEND_STROKE,
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

const titleHeight = (figure: FigureData): number => (figure.paper === undefined ? 38 : 56);

function headHeight(figure: FigureData, look: LegendLook): number {
  const rows = legendRows(figure, look);
  return (look.titled ? titleHeight(figure) : 0) + (rows === 0 ? 0 : rows * LEGEND_ROW - 2);
}

function axisLabel(of: FigureAxis, { dark }: ChartLook): Record<string, unknown> {
  return {
    color: INK[dark ? 'dark' : 'light'].faint,
    fontSize: 11,
    hideOverlap: true,
    formatter: (v: number) => formatNumber(v, of.format),
  };
}

function axis(of: FigureAxis, look: ChartLook): Record<string, unknown> {
  const ink = INK[look.dark ? 'dark' : 'light'];
  return {
    type: of.scale === 'log' ? 'log' : 'value',
    name: of.label,
    nameTextStyle: { color: ink.faint, fontSize: 12 },
    axisLine: { show: true, onZero: false, lineStyle: { color: ink.axis } },
    axisTick: { show: false },
    axisLabel: axisLabel(of, look),
    splitLine: { lineStyle: { color: ink.grid } },
    ...(of.min === undefined ? {} : { min: of.min }),
    ...(of.max === undefined ? {} : { max: of.max }),
  };
}

function xAxisExtras(figure: FigureData, look: ChartLook): Record<string, unknown> {
  const { x: of, series } = figure;
  const base = { nameLocation: 'middle', nameGap: 26, splitLine: { show: false } };
  const { categories } = of;
  if (categories === undefined) {
    const xs = series.flatMap(({ points, xIntervals }) => [
      ...points.map(([at]) => at),
      ...(xIntervals ?? []).flatMap((interval) => interval ?? []),
    ]);
    return {
      ...base,
      ...(xs.length === 0 ? {} : xEnds(figure, look, Math.min(...xs), Math.max(...xs))),
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
      ...axisLabel(of, look),
      showMinLabel: false,
      showMaxLabel: false,
      formatter: (v: number) => (Number.isInteger(v) ? (categories[v] ?? '') : ''),
    },
  };
}

/** The ends of the data; with error bars a little more, for those that stand aside, and without numbers there. */
function xEnds(figure: FigureData, look: ChartLook, low: number, high: number): Record<string, unknown> {
  const { x: of } = figure;
  const [min, max] = [of.min ?? low, of.max ?? high];
  const reach = barsReach(figure);
  if (reach === 0 || min === max) return { min, max };
  const ends =
    of.scale === 'log'
      ? { min: min / (max / min) ** reach, max: max * (max / min) ** reach }
      : { min: min - (max - min) * reach, max: max + (max - min) * reach };
  return { ...ends, axisLabel: { ...axisLabel(of, look), showMinLabel: false, showMaxLabel: false } };
}

function yAxisExtras(of: FigureAxis, figure: FigureData, { dark }: ChartLook): Record<string, unknown> {
  const ys = figure.series.flatMap(({ points, intervals }) => [
    ...points.map(([, y]) => y),
    ...(intervals ?? []).flatMap((interval) => interval ?? []),
  ]);
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  return {
    // a share is never more than all
    ...(low >= 0 && high > 0.9 && high <= 1 && of.scale !== 'log' ? { max: 1 } : {}),
    // Powers of ten leave most of the paper empty where the data span less than two of them.
    ...(of.scale === 'log' ? { logBase: high < 64 * low ? 2 : 10 } : {}),
    ...(of.max === undefined ? {} : { max: of.max }),
    nameLocation: 'end',
    nameGap: 8,
    nameTextStyle: { color: INK[dark ? 'dark' : 'light'].faint, fontSize: 12, align: 'left', padding: 0 },
    axisLine: { show: false, onZero: false },
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
    symbol: dots ? symbolOf(one.color) : 'none',
    symbolSize: 7,
    lineStyle: { width: line ? 2 : 0, type: one.dash ?? 'solid', opacity: line ? 1 : 0 },
    itemStyle: { borderWidth: 0 },
    emphasis: { disabled: true },
    z: 3,
  };
  // The first of a name gives the legend its look.
  return [main, ...extras];
}

const SYMBOLS = ['circle', 'triangle', 'rect', 'diamond'];

/** Tells apart what has the same colour: there are fewer colours than a study has methods. */
const symbolOf = (color: number): string =>
  SYMBOLS[Math.max(0, Math.floor(color / RUN_COLORS)) % SYMBOLS.length] as string;

/** Error bars of several series stand so much of the axis beside each other. */
const ASIDE = 0.012;

/** Those of which bars may cover each other: a cross, with bars in both directions, is where its dot is. */
const withBars = ({ series }: FigureData): FigureSeries[] =>
  series.filter(({ intervals, xIntervals, uncertainty }) => intervals && !xIntervals && uncertainty !== 'band');

/** How far error bars reach beyond the first and last x, in lengths of the axis; 0 without any. */
function barsReach(figure: FigureData): number {
  const bars = withBars(figure).length;
  if (bars > 0) return (ASIDE * (bars - 1)) / 2 + 0.015;
  return figure.series.some(({ xIntervals }) => xIntervals) ? 0.015 : 0;
}

/** Moves the bars of several series beside each other, by `place` times a little, where dots are at the same x. */
function aside({ x, series }: FigureData, place: number): (at: number) => number {
  const xs = series.flatMap(({ points }) => points.map(([at]) => at));
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  if (x.categories !== undefined) return (at) => at;
  if (x.scale === 'log') return (at) => at * (high / low) ** (ASIDE * place);
  return (at) => at + (high - low) * ASIDE * place;
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

/** Horizontal lines: what they are stands in the legend, where it hides nothing. */
function referenceSeries({ references = [] }: FigureData, { dark }: ChartLook): Record<string, unknown>[] {
  const ink = INK[dark ? 'dark' : 'light'];
  return references.map(({ label, value }) => ({
    type: 'line',
    ...(label === '' ? {} : { name: label }),
    color: ink.faint,
    data: [],
    silent: true,
    markLine: {
      silent: true,
      symbol: 'none',
      animation: false,
      lineStyle: { color: ink.faint, type: [2, 4], width: 1 },
      label: { show: false },
      data: [{ yAxis: value }],
    },
  }));
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
