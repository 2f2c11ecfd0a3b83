/** A figure as plain data: what is drawn, not how. Drawn by client/option.ts, in Node and in a browser alike. */

/** One axis of a figure. */
export interface FigureAxis {
  /** What it is, with its unit: `entropy (nats per token)`. */
  label: string;
  /** Default linear. */
  scale?: 'linear' | 'log';
  /** Ends of the axis; default: what the data need. On a linear y axis without `min`, 0 need not be on it. */
  min?: number;
  max?: number;
  /** How its numbers are written. Default number. `percent`: shares between 0 and 1. */
  format?: 'number' | 'integer' | 'percent';
  /** Names for the whole numbers 0, 1, ... of an x axis: dots and bars by category. */
  categories?: readonly string[];
}

/** A line, or dots, or the bars of one colour. */
export interface FigureSeries {
  /** In the legend. Series of the same name are shown and hidden together. */
  name: string;
  /** Index into the colours: one a run, wrapping around. -1: grey; -2, -3, ...: tints, for what is not a run. */
  color: number;
  /** Stage 1 is solid, stage 2 dashed. Default solid. */
  dash?: 'solid' | 'dashed' | 'dotted';
  /** In order of x. */
  points: readonly (readonly [x: number, y: number])[];
  /** 95 % interval of y at each point, one entry a point; null: none. */
  intervals?: readonly (readonly [low: number, high: number] | null)[];
  /** 95 % interval of x at each point. Drawn as bars. */
  xIntervals?: readonly (readonly [low: number, high: number] | null)[];
  /** How `intervals` are drawn. Default bars. A band needs an interval at every point, and a linear axis. */
  uncertainty?: 'bars' | 'band';
  /** A line through the points. Default true. */
  line?: boolean;
  /** A dot at each point. Default: where there are intervals, few points, or no line. */
  dots?: boolean;
}

/** A horizontal line at one value. */
export interface FigureReference {
  label: string;
  value: number;
}

/** One figure. */
export interface FigureData {
  /** Its name in links and files: lower case letters, digits and `-`. */
  id: string;
  /** What it shows, in one line. */
  title: string;
  /** What to see in it and how it was measured; plain text. */
  caption: string;
  /** The paper's figure or table that it corresponds to: `Fig. 6a`. */
  paper?: string;
  /** Heading that it stands under. */
  section?: string;
  /** `bars`: horizontal bars, a bar per category of `x`, stacked, one series a colour. Default lines. */
  kind?: 'lines' | 'bars';
  x: FigureAxis;
  y: FigureAxis;
  series: readonly FigureSeries[];
  /** Whether a reader may smooth it: thin line as measured, thick line averaged. */
  smooth?: boolean;
  references?: readonly FigureReference[];
  /** Whether it has a legend. Default: where there are several names. */
  legend?: boolean;
}

/** `0.123457`: six significant digits are more than a figure shows. */
export const rounded = (value: number): number => Number(value.toPrecision(6));

/**
 * At most `limit` points: means of x and y over runs of neighbours of equal number. Fewer are left as they are.
 */
export function thinned(points: readonly (readonly [number, number])[], limit = 1500): [number, number][] {
  const per = Math.ceil(points.length / limit);
  if (per <= 1) return points.map(([x, y]) => [x, rounded(y)]);
  const means: [number, number][] = [];
  for (let begin = 0; begin < points.length; begin += per) {
    const part = points.slice(begin, begin + per);
    const mean = (axis: 0 | 1): number => part.reduce((sum, point) => sum + point[axis], 0) / part.length;
    means.push([Math.round(mean(0)), rounded(mean(1))]);
  }
  return means;
}
