/**
 * The script of a report's page: draws its figures from its data, and draws them again when the window, the colours of
 * the system, the smoothing or the data change. Runs in a browser; of other modules it imports option.ts only.
 */
import type { FigureData, FigureSeries } from '../figure.js';
import type { ReportData } from '../page.js';
import type { Browser, Chart, PageElement } from './dom.js';
import { type ChartLook, formatNumber, runColor } from './look.js';
import { chartOption, figureHeight } from './option.js';

const browser = globalThis as unknown as Browser;
const { document } = browser;
const FONT = 'system-ui, sans-serif';
const MAX_TABLE_ROWS = 200;

/** A figure on the page. */
interface Shown {
  data: FigureData;
  root: PageElement;
  plot: PageElement;
  chart: Chart | null;
  /** In the window, or not far from it. */
  near: boolean;
  /** What is drawn is not what there is. */
  stale: boolean;
  /** As drawn. */
  size: { width: number; height: number };
  /** Names in its legend that are switched off. */
  off: string[];
  /** Where the reader points at it. */
  pointer: { x: number; y: number } | null;
  /** Fills its table, where it is unfolded. */
  refresh(): void;
}

const dark = browser.matchMedia('(prefers-color-scheme: dark)');
const shown = new Map<string, Shown>();
/** Runs that the reader has switched off. */
const hidden = new Set<number>();
const slider = document.getElementById('smoothing');

/** Of the points of a line, in percent. */
const smoothing = (): number => Number(slider?.value ?? 7);

function windowOf({ series }: FigureData): number {
  const longest = Math.max(0, ...series.map(({ points }) => points.length));
  return 2 * Math.floor((longest * smoothing()) / 200) + 1;
}

function element(name: string, className = '', text = ''): PageElement {
  const made = document.createElement(name);
  if (className !== '') made.className = className;
  if (text !== '') made.textContent = text;
  return made;
}

/** The figure without the runs that are switched off. Colours of bars are phases, not runs. */
function chosen(figure: FigureData): FigureData {
  if (hidden.size === 0 || figure.kind === 'bars') return figure;
  return { ...figure, series: figure.series.filter(({ color }) => !hidden.has(color)) };
}

const pen = document.createElement('canvas').getContext?.('2d') ?? null;
if (pen !== null) pen.font = `12px ${FONT}`;

const lookOf = (one: Shown, width: number): ChartLook => ({
  width,
  dark: dark.matches,
  window: windowOf(one.data),
  titled: false,
  font: FONT,
  hiddenNames: one.off,
  ...(pen === null ? {} : { measure: (text) => pen.measureText(text).width + 2 }),
});

/** Gives a figure its height, whether it is drawn or not, so that nothing moves when it is; draws it if it is near. */
function draw(one: Shown): void {
  const width = one.plot.clientWidth;
  if (!one.root.isConnected || width === 0) return;
  const figure = chosen(one.data);
  const look = lookOf(one, width);
  const height = figureHeight(figure, look);
  one.plot.style.setProperty('height', `${height}px`);
  one.stale = !one.near;
  if (one.stale) return;
  if (one.chart === null) one.chart = chartIn(one, width, height);
  else if (width !== one.size.width || height !== one.size.height) one.chart.resize({ width, height });
  one.size = { width, height };
  one.chart.setOption(chartOption(figure, look), true);
  // what the reader reads stays
  if (one.pointer !== null) one.chart.dispatchAction({ type: 'showTip', ...one.pointer });
}

function chartIn(one: Shown, width: number, height: number): Chart {
  const chart = browser.echarts.init(one.plot, null, { renderer: 'svg', width, height });
  chart.on('legendselectchanged', ({ selected }) => {
    one.off = Object.keys(selected).filter((name) => !selected[name]);
  });
  chart.getZr().on('mousemove', ({ offsetX: x, offsetY: y }) => {
    one.pointer = { x, y };
  });
  chart.getZr().on('globalout', () => {
    one.pointer = null;
  });
  return chart;
}

function drawAll(): void {
  for (const one of shown.values()) draw(one);
}

const sizes = new browser.ResizeObserver((entries) => {
  for (const { target } of entries) {
    const one = shown.get(target.dataset.figure ?? '');
    if (one !== undefined && target.clientWidth !== one.size.width) draw(one);
  }
});

const nearby = new browser.IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const one = shown.get(target.dataset.figure ?? '');
      if (one === undefined) continue;
      one.near = isIntersecting;
      if (isIntersecting && one.stale) draw(one);
    }
  },
  { rootMargin: '600px' },
);

/** Heading, plot, caption, and the data for those who read or compute. */
function build(data: FigureData): Shown {
  const root = element('figure');
  root.id = `figure-${data.id}`;
  const heading = element('h3', '', data.title);
  if (data.paper !== undefined) heading.append(' ', element('span', 'paper', `cf. ${data.paper}`));
  const plot = element('div', 'plot');
  plot.dataset.figure = data.id;
  plot.setAttribute('role', 'img');
  plot.setAttribute('aria-label', `${data.title}. ${data.caption} The numbers are in the table below.`);
  const size = { width: 0, height: 0 };
  const one: Shown = {
    data,
    root,
    plot,
    chart: null,
    near: false,
    stale: true,
    size,
    off: [],
    pointer: null,
    refresh: () => {},
  };
  const details = element('details', 'data');
  const table = element('div', 'scroll');
  details.append(element('summary', '', 'Data'), table);
  one.refresh = () => {
    if (details.open) table.replaceChildren(...dataTable(one.data));
  };
  details.addEventListener('toggle', one.refresh);
  const tools = element('div', 'tools');
  tools.append(
    details,
    tool('CSV', () => save(`${one.data.id}.csv`, 'text/csv', csv(one.data))),
    tool('SVG', () => save(`${one.data.id}.svg`, 'image/svg+xml', picture(one.data))),
  );
  root.append(heading, plot, element('figcaption', '', data.caption), tools);
  return one;
}

function tool(label: string, work: () => void): PageElement {
  const button = element('button', 'tool', label);
  button.setAttribute('type', 'button');
  button.addEventListener('click', work);
  return button;
}

function save(name: string, type: string, text: string): void {
  const link = element('a');
  link.href = browser.URL.createObjectURL(new browser.Blob([text], { type }));
  link.download = name;
  link.click();
  browser.setTimeout(() => browser.URL.revokeObjectURL(link.href), 10_000);
}

/** As on the page, with its title, on white. */
function picture(data: FigureData): string {
  const figure = chosen(data);
  const look = {
    width: 720,
    dark: false,
    window: windowOf(figure),
    titled: true,
    font: 'Helvetica, Arial, sans-serif',
  };
  const height = figureHeight(figure, look);
  const chart = browser.echarts.init(null, null, { renderer: 'svg', ssr: true, width: look.width, height });
  chart.setOption(chartOption(figure, look), true);
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

/** One row an x, one column a series, in the words of the figure. */
function rowsOf({ x, series }: FigureData): { header: string[]; rows: (string | number | null)[][] } {
  const values = [...new Set(series.flatMap(({ points }) => points.map(([at]) => at)))].sort((a, b) => a - b);
  const columns = series.map(({ points }) => new Map(points.map((point) => [point[0], point[1]])));
  return {
    header: [x.label, ...series.map(({ name }) => name)],
    rows: values.map((at) => [x.categories?.[at] ?? at, ...columns.map((column) => column.get(at) ?? null)]),
  };
}

function dataTable(figure: FigureData): PageElement[] {
  const { header, rows } = rowsOf(figure);
  const line = (cells: readonly string[], kind: 'th' | 'td'): PageElement => {
    const row = element('tr');
    row.append(...cells.map((cell) => element(kind, '', cell)));
    return row;
  };
  const cell = (value: string | number | null): string =>
    value === null ? '' : typeof value === 'number' ? formatNumber(value) : value;
  const table = element('table', 'numbers');
  const body = element('tbody');
  const head = element('thead');
  head.append(line(header, 'th'));
  body.append(...rows.slice(0, MAX_TABLE_ROWS).map((row) => line(row.map(cell), 'td')));
  table.append(head, body);
  const rest = rows.length - MAX_TABLE_ROWS;
  return rest > 0 ? [table, element('p', 'note', `and ${rest} more rows, in the CSV`)] : [table];
}

/** With the ends of the intervals; a text that a spreadsheet would compute is kept a text. */
function csv(figure: FigureData): string {
  const quote = (value: string | number | null): string => {
    if (value === null || typeof value === 'number') return String(value ?? '');
    return `"${(/^[=+@\-\t\r]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;
  };
  const ends = (one: FigureSeries, end: 0 | 1): FigureSeries => ({
    ...one,
    name: `${one.name} (${end === 0 ? 'low' : 'high'})`,
    points: one.points.flatMap(([at], i): [number, number][] => {
      const interval = one.intervals?.[i];
      return interval ? [[at, interval[end]]] : [];
    }),
  });
  const series = figure.series.flatMap((one) => (one.intervals ? [one, ends(one, 0), ends(one, 1)] : [one]));
  const { header, rows } = rowsOf({ ...figure, series });
  return [header, ...rows].map((row) => `${row.map(quote).join(',')}\r\n`).join('');
}

const idOf = (section: string): string => `section-${section.toLowerCase().replace(/[^a-z0-9]+/g, '-')}`;

/** Puts figures under the headings of their sections, and links to these; moves nothing that is where it should be. */
function arrange(figures: readonly FigureData[]): void {
  const names = [...new Set(figures.map(({ section = 'Figures' }) => section))];
  const sections = names.map((name) => {
    const there = document.getElementById(idOf(name));
    if (there !== null) return there;
    const made = element('section');
    made.id = idOf(name);
    made.append(element('h2', '', name), element('div', 'figures'));
    return made;
  });
  const links = names.map((name) => {
    const there = document.getElementById(`to-${idOf(name)}`);
    if (there !== null) return there;
    const made = element('a', '', name);
    made.id = `to-${idOf(name)}`;
    made.href = `#${idOf(name)}`;
    return made;
  });
  setChildren(document.getElementById('figures'), sections);
  setChildren(document.getElementById('contents-figures'), links);
  for (const [i, name] of names.entries()) {
    const own = figures.filter(({ section = 'Figures' }) => section === name);
    setChildren(
      sections[i]?.querySelector('.figures') ?? null,
      own.map(({ id }) => shown.get(id)?.root ?? element('i')),
    );
  }
}

function setChildren(parent: PageElement | null, children: readonly PageElement[]): void {
  const now = [...(parent?.children ?? [])];
  if (now.length !== children.length || now.some((child, i) => child !== children[i]))
    parent?.replaceChildren(...children);
}

/** Puts text and tables into their places and paints the dots of the runs. What the reader has unfolded stays so. */
function fill(parts: ReportData['parts']): void {
  for (const [name, content] of Object.entries(parts)) {
    const place = document.getElementById(`part-${name}`);
    if (place === null || place.dataset.content === content) continue;
    const unfolded = [...place.querySelectorAll('details')].map((details) => details.open);
    const before = place.dataset.content !== undefined;
    place.innerHTML = content;
    place.dataset.content = content;
    if (!before) continue;
    for (const [i, details] of [...place.querySelectorAll('details')].entries())
      details.open = unfolded[i] ?? details.open;
  }
  paint();
}

function paint(): void {
  for (const marked of document.querySelectorAll('[data-run]')) {
    const run = Number(marked.dataset.run);
    marked.style.setProperty('--run', runColor(run, dark.matches));
    if (marked.className === 'chip') marked.setAttribute('aria-pressed', String(!hidden.has(run)));
  }
}

/** Shows `data`: the first time, and again whenever there is more of it. */
function update(data: ReportData): void {
  document.title = data.title;
  fill(data.parts);
  const wanted = new Set(data.figures.map(({ id }) => id));
  for (const [id, one] of shown) {
    if (wanted.has(id)) continue;
    one.chart?.dispose();
    one.root.remove();
    shown.delete(id);
  }
  const changed = data.figures.filter((figure) => {
    const there = shown.get(figure.id);
    if (there === undefined) shown.set(figure.id, build(figure));
    else if (JSON.stringify(there.data) === JSON.stringify(figure)) return false;
    else there.data = figure;
    return true;
  });
  arrange(data.figures);
  for (const { id } of changed) {
    const one = shown.get(id) as Shown;
    draw(one);
    one.refresh();
    // once more is nothing new
    nearby.observe(one.plot);
    sizes.observe(one.plot);
  }
}

document.body.addEventListener('click', ({ target }) => {
  const chip = (target as PageElement).closest('.chip');
  if (chip === null) return;
  const run = Number(chip.dataset.run);
  if (!hidden.delete(run)) hidden.add(run);
  paint();
  drawAll();
});
slider?.addEventListener('input', drawAll);
dark.addEventListener('change', () => {
  paint();
  drawAll();
});
browser.addEventListener('beforeprint', () => {
  for (const one of shown.values()) one.near = true;
  drawAll();
});
// Kept out of closures' sight: other scripts of the page reach this and nothing else.
browser.eepoReport = { update: (data) => update(data as ReportData) };
const island = document.getElementById('report-data')?.textContent;
if (island) update(JSON.parse(island) as ReportData);
