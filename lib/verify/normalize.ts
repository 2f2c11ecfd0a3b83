/** One spelling for answers that are written in many ways. */

const SPACING = /\\(?:[,;:> ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z]))|~/g;
const DECORATION = /\\(?:left|right|displaystyle|bigl|bigr|big|Big)(?![a-zA-Z])/g;
const DEGREES = /\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])|°/g;
// A short unit needs a space before it: `3 m` is a length, `3m` a product.
const UNITS =
  /^([-+]?[0-9.,/]+)(?:\s+(?:square|sq|cubic))?(?:\s+(?:cm|mm|m|km|in|ft|kg|g|mph)|\s*(?:units?|inch|inches|feet|foot|yards?|miles?|meters?|centimeters?|seconds?|minutes?|hours?|days?|weeks?|months?|years?|dollars?|cents?|degrees?|points?|percent|pounds?|grams?))(?:\s*\^?\{?[23]\}?)?$/i;

/**
 * Normalizes an answer: spaces, `$`, `\left`/`\right`, degrees, percent and units at the end go; `\dfrac`, `\tfrac` and
 * `\frac` of plain arguments become `a/b`; `\text{x}` becomes `x`; `1,234` becomes `1234`; `x = 5` becomes `5`.
 */
export function normalizeAnswer(answer: string): string {
  let text = answer
    .trim()
    .replace(/\\\$|\$/g, '')
    .replace(/\\!/g, '')
    .replaceAll('{,}', ',')
    .replace(SPACING, ' ')
    .replace(DECORATION, '')
    .replace(DEGREES, '')
    .replace(/\\?%/g, '')
    .replace(/\\[dt]frac(?![a-zA-Z])/g, '\\frac')
    .replace(/−/g, '-')
    .trim()
    .replace(/[.,;:]$/, '')
    .trim();
  text = withoutTextUnit(text);
  text = text.replace(/\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}\\]*)\}/g, '$1').trim();
  text = UNITS.exec(text)?.[1] ?? text;
  text = text.replace(/^[a-zA-Z]\s*=\s*(?=\S)/, '').replace(/^\\in(?![a-zA-Z])\s*/, '');
  // Before spaces go: `1,234` is a number, `1, 234` are two.
  if (/^[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?$/.test(text)) text = text.replaceAll(',', '');
  text = fractions(text.replace(/\s+/g, ''));
  text = text.replace(/\\sqrt([0-9a-zA-Z])/g, '\\sqrt{$1}');
  text = text.replace(/^\(([a-zA-Z])\)$/, '$1');
  // Words, not variables: `Yes` is `yes`, but `AB` is not `ab`.
  if (/^(?:no|[a-z]{3,})$/i.test(text)) text = text.toLowerCase();
  return text;
}

/** `5 \text{ cm}` is `5`: text after something is a unit, text alone is the answer. */
function withoutTextUnit(text: string): string {
  const unit = /\\(?:text|mathrm|mbox)\s*\{[^{}\\]*\}(?:\s*\^\s*(?:\{[0-9]\}|[0-9]))?$/.exec(text);
  if (unit === null || unit.index === 0) return text;
  const before = text.slice(0, unit.index).trim();
  return /[0-9}]$/.test(before) ? before : text;
}

/**
 * `\frac{a}{b}`, `\frac ab` and `2\frac{1}{2}` (a mixed number) become `a/b` where that reads the same: plain arguments,
 * nothing after it (`\frac{1}{2}x` is not `\frac{1}{2x}`) and no exponent.
 */
function fractions(text: string): string {
  return text
    .replace(/\\frac([0-9a-zA-Z])([0-9a-zA-Z])/g, '\\frac{$1}{$2}')
    .replace(/\\frac([0-9a-zA-Z])\{/g, '\\frac{$1}{')
    .replace(/(^|[^0-9.}^_])([0-9]{1,15})\\frac\{([0-9]{1,15})\}\{([0-9]{1,15})\}/g, mixedNumber)
    .replace(/(?<![\^_])\\frac\{(-?(?:[0-9.]+|[a-zA-Z]))\}\{(-?(?:[0-9.]+|[a-zA-Z]))\}(?![0-9a-zA-Z\\({^])/g, '$1/$2');
}

function mixedNumber(_all: string, before: string, whole: string, numerator: string, denominator: string): string {
  return `${before}${BigInt(whole) * BigInt(denominator) + BigInt(numerator)}/${denominator}`;
}
