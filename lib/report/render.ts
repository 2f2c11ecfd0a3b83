/** Figures as pictures, without a browser: SVG by ECharts, PNG by resvg. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { initWasm, Resvg } from '@resvg/resvg-wasm';
import { InvalidArgumentError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import type { ChartLook } from './client/look.js';
import { chartOption, defaultWindow, figureHeight } from './client/option.js';
import type { FigureData } from './figure.js';

const require = createRequire(import.meta.url);

/** The part of ECharts that is used here. */
interface ECharts {
  init(
    element: null,
    theme: null,
    options: { renderer: 'svg'; ssr: true; width: number; height: number },
  ): { setOption(option: object): void; renderToSVGString(): string; dispose(): void };
}

/** Path of the library's build that pages carry. */
export const CHART_LIBRARY = require.resolve('echarts/dist/echarts.common.min.js');

export interface SvgOptions {
  /** Pixels. Default 720. */
  width?: number;
  /** Pixels. Default: by the figure. */
  height?: number;
  /** Light letters on dark paper. Default false. */
  dark?: boolean;
  /** Window of the moving average in points; default: by the length of the figure's lines; 1: none. */
  window?: number;
}

const KEYS: OptionKeys<SvgOptions> = { width: true, height: true, dark: true, window: true };

/** Named by the pictures; without quotation marks, which the library would not escape. */
const FONT = 'Inter, Helvetica, Arial, sans-serif';

let charts: ECharts | undefined;

/**
 * A figure, with its title, as the text of an SVG file. The same bytes for the same figure.
 *
 * @throws InvalidArgumentError for a width or height that is no picture's
 */
export function figureSvg(figure: FigureData, options: SvgOptions = {}): string {
  checkOptions(options, KEYS, 'figureSvg');
  const { width = 720, dark = false, window = defaultWindow(figure) } = options;
  const look: ChartLook = { width, dark, window, titled: true, font: FONT };
  const { height = figureHeight(figure, look) } = options;
  for (const [name, value] of Object.entries({ width, height })) {
    if (Number.isFinite(value) && value >= 100 && value <= 10_000) continue;
    throw new InvalidArgumentError(`figureSvg: ${name} = ${value}: expected pixels, 100 to 10000`);
  }
  charts ??= require(CHART_LIBRARY) as ECharts;
  const chart = charts.init(null, null, { renderer: 'svg', ssr: true, width, height });
  try {
    chart.setOption(chartOption(figure, look));
    return stable(chart.renderToSVGString());
  } finally {
    chart.dispose();
  }
}

/**
 * Without what only a page could use, and with names that count from 0 in each figure: the library numbers what it draws
 * since the process began.
 */
function stable(svg: string): string {
  const still = svg
    .replace(/<style\b[^>]*>[\s\S]*?<\/style>\n?/g, '')
    .replace(/<[a-z]+ [^<>]*>/gi, (tag) =>
      tag.replace(/ (?:class="zr\d+-cls-\d+"|ecmeta_\w+="[^"]*"|pointer-events="[^"]*")/g, ''),
    );
  const seen = new Map<string, string>();
  return still.replace(/\bzr\d+-c\d+\b/g, (name) => {
    const known = seen.get(name) ?? `clip${seen.size}`;
    seen.set(name, known);
    return known;
  });
}

let ready: Promise<unknown> | undefined;

/**
 * An SVG of {@link figureSvg} as the bytes of a PNG file. Letters are Inter's (Latin, Greek and Cyrillic), whatever fonts
 * the machine has.
 *
 * @param scale pixels of the PNG for one of the SVG. Default 2.
 */
export async function svgToPng(svg: string, scale = 2): Promise<Uint8Array> {
  if (!(scale > 0 && scale <= 10)) throw new InvalidArgumentError(`svgToPng: scale = ${scale}: expected 0 to 10`);
  ready ??= initWasm(readFileSync(require.resolve('@resvg/resvg-wasm/index_bg.wasm')));
  await ready;
  const image = new Resvg(svg, {
    fitTo: { mode: 'zoom', value: scale },
    font: { fontBuffers: fontsFor(svg), defaultFontFamily: 'Inter', sansSerifFamily: 'Inter' },
  });
  try {
    const rendered = image.render();
    try {
      return rendered.asPng();
    } finally {
      rendered.free();
    }
  } finally {
    image.free();
  }
}

/** Letters that each file of the font has beside those of `latin`. */
const SCRIPTS: readonly [script: string, letters: RegExp][] = [
  ['latin', /^/],
  ['latin-ext', /[\u0100-\u02ff\u1e00-\u1eff]/],
  ['greek', /[\u0370-\u03ff]/],
  ['cyrillic', /[\u0400-\u04ff]/],
];

const loaded = new Map<string, Uint8Array>();

/** The files of the font that a picture needs: each is unpacked for each picture. */
function fontsFor(svg: string): Uint8Array[] {
  return SCRIPTS.filter(([, letters]) => letters.test(svg)).flatMap(([script]) =>
    [400, 600].map((weight) => {
      const name = `@fontsource/inter/files/inter-${script}-${weight}-normal.woff2`;
      const bytes = loaded.get(name) ?? readFileSync(require.resolve(name));
      loaded.set(name, bytes);
      return bytes;
    }),
  );
}
