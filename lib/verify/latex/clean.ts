/** Spelling that carries no meaning, before tokens: Unicode mathematics, spacing, sizes, delimiters of math mode. */
import { table } from '../table.js';

/** Characters that have a LaTeX name; a space ends the command. */
const SYMBOLS = table<string>({
  '−': '-',
  '–': '-',
  '—': '-',
  '‐': '-',
  '‑': '-',
  '﹣': '-',
  '－': '-',
  '×': '\\times ',
  '✕': '\\times ',
  '·': '\\cdot ',
  '⋅': '\\cdot ',
  '∙': '\\cdot ',
  '•': '\\cdot ',
  '∗': '*',
  '÷': '/',
  '∕': '/',
  '⁄': '/',
  '≤': '\\le ',
  '≥': '\\ge ',
  '⩽': '\\le ',
  '⩾': '\\ge ',
  '≠': '\\ne ',
  '≈': '\\approx ',
  '≃': '\\approx ',
  '≅': '\\approx ',
  '≡': '\\equiv ',
  '±': '\\pm ',
  '∓': '\\mp ',
  '∞': '\\infty ',
  '√': '\\sqrt ',
  '∛': '\\sqrt[3]',
  '∜': '\\sqrt[4]',
  '∪': '\\cup ',
  '∩': '\\cap ',
  '∖': '\\setminus ',
  '∈': '\\in ',
  '∅': '\\emptyset ',
  ℝ: '\\mathbb{R}',
  ℤ: '\\mathbb{Z}',
  ℕ: '\\mathbb{N}',
  ℚ: '\\mathbb{Q}',
  ℂ: '\\mathbb{C}',
  '°': '\\degree ',
  º: '\\degree ',
  '˚': '\\degree ',
  '∘': '\\circ ',
  '′': "'",
  '’': "'",
  '‘': "'",
  '″': "''",
  '“': '"',
  '”': '"',
  '∑': '\\sum ',
  '∏': '\\prod ',
  '∫': '\\int ',
  '⌊': '\\lfloor ',
  '⌋': '\\rfloor ',
  '⌈': '\\lceil ',
  '⌉': '\\rceil ',
  '⟨': '\\langle ',
  '⟩': '\\rangle ',
  '∣': '|',
  '∥': '\\|',
  '→': '\\to ',
  '⇒': '\\to ',
  '：': ':',
  '，': ',',
  '；': ';',
  '。': '.',
  '（': '(',
  '）': ')',
  '％': '%',
  '€': '\\euro ',
  '£': '\\pounds ',
  '¥': '\\yen ',
  '￥': '\\yen ',
  '＄': '\\$',
  α: '\\alpha ',
  β: '\\beta ',
  γ: '\\gamma ',
  δ: '\\delta ',
  ε: '\\epsilon ',
  ϵ: '\\epsilon ',
  ζ: '\\zeta ',
  η: '\\eta ',
  θ: '\\theta ',
  ι: '\\iota ',
  κ: '\\kappa ',
  λ: '\\lambda ',
  μ: '\\mu ',
  µ: '\\mu ',
  ν: '\\nu ',
  ξ: '\\xi ',
  π: '\\pi ',
  ρ: '\\rho ',
  σ: '\\sigma ',
  τ: '\\tau ',
  υ: '\\upsilon ',
  φ: '\\phi ',
  ϕ: '\\phi ',
  χ: '\\chi ',
  ψ: '\\psi ',
  ω: '\\omega ',
  Γ: '\\Gamma ',
  Δ: '\\Delta ',
  '∆': '\\Delta ',
  Θ: '\\Theta ',
  Λ: '\\Lambda ',
  Ξ: '\\Xi ',
  Π: '\\Pi ',
  Σ: '\\Sigma ',
  Φ: '\\Phi ',
  Ψ: '\\Psi ',
  Ω: '\\Omega ',
});
const FRACTIONS = table<string>({
  '½': '1/2',
  '⅓': '1/3',
  '⅔': '2/3',
  '¼': '1/4',
  '¾': '3/4',
  '⅕': '1/5',
  '⅖': '2/5',
  '⅗': '3/5',
  '⅘': '4/5',
  '⅙': '1/6',
  '⅚': '5/6',
  '⅐': '1/7',
  '⅛': '1/8',
  '⅜': '3/8',
  '⅝': '5/8',
  '⅞': '7/8',
  '⅑': '1/9',
  '⅒': '1/10',
});
const SUPERSCRIPTS = '⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ';
const SUBSCRIPTS = '₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎';
const PLAIN_SCRIPT = '0123456789+-=()ni';
/** Zeros of the decimal digits that Unicode's compatibility form leaves alone. */
const ZEROS = [0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xe50, 0xed0, 0xf20];

/** Zero-width spaces and marks of direction. */
const INVISIBLE = /\p{Cf}/gu;
const ASCII = /^\p{ASCII}*$/u;
const MULTIPLE_CHARACTERS = /[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+|[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎]+|\P{ASCII}/gu;

/** Sizes and styles: they change how a formula looks. */
const DECORATION =
  /\\(?:left|right|mleft|mright|middle|displaystyle|textstyle|scriptstyle|limits|nolimits|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|bigg|Bigg|big|Big|normalsize|large|Large|tiny|small|rm|bf|it|centering|noindent)(?![a-zA-Z])\s*\.?(?=\s|[^0-9]|$)/g;
/** The delimiter that is not drawn: the digit after its dot is no decimal. */
const NO_DELIMITER = /\\m?(?:left|right)\s*\.(?!\.)/g;
/** Commands that end a proof, keep a place or lead to an answer. */
const ORNAMENTS = /\\(?:[hv]?phantom\s*\{[^{}]*\}|(?:square|blacksquare|Box|qed|checkmark)(?![a-zA-Z]))/g;
/** A right brace that is not drawn makes a system of an array. */
const BRACED_ARRAY =
  /\\left\s*\\\{\s*\\begin\s*\{array\}\s*\{[lcr| ]*\}([^{}]*(?:\{[^{}]*\}[^{}]*)*)\\end\s*\{array\}\s*\\right\s*\./g;
const SPACES =
  /\\(?:[,;: \n]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|hspace\*?\{[^{}]*\}|enspace(?![a-zA-Z])|thinspace(?![a-zA-Z]))|~|[\t\n\r]/g;

/** ASCII text with the same meaning: Unicode digits, symbols and scripts become LaTeX. Linear. */
export function toAscii(text: string): string {
  if (ASCII.test(text)) return text;
  return text
    .replace(INVISIBLE, '')
    .replace(/(\d)\s?([cdkm]?m)(?=[²³])/g, '$1 \\text{$2}')
    .replace(/([√∛∜])\s?(\d+(?:\.\d+)?|[a-z](?![a-z]))/g, '$1{$2}')
    .replace(MULTIPLE_CHARACTERS, asciiOf);
}

function asciiOf(piece: string): string {
  const first = [...piece][0] as string;
  if (SUPERSCRIPTS.includes(first)) return `^{${script(piece, SUPERSCRIPTS)}}`;
  if (SUBSCRIPTS.includes(first)) return `_{${script(piece, SUBSCRIPTS)}}`;
  const symbol = SYMBOLS[piece];
  if (symbol !== undefined) return symbol;
  const fraction = FRACTIONS[piece];
  if (fraction !== undefined) return ` ${fraction}`;
  const code = piece.codePointAt(0) as number;
  const zero = ZEROS.find((start) => code >= start && code < start + 10);
  if (zero !== undefined) return String(code - zero);
  const plain = piece.normalize('NFKC');
  if (plain !== piece) return toAscii(plain);
  return /\s/.test(piece) ? ' ' : piece;
}

function script(piece: string, alphabet: string): string {
  return Array.from(piece, (c) => PLAIN_SCRIPT[[...alphabet].indexOf(c)]).join('');
}

/**
 * One spelling for layout: no sizes, no math-mode delimiters, one kind of space, `\frac` for its relatives; a `$` that
 * is no delimiter is a dollar sign and becomes `\$`. Thousands separators that can be nothing else (`{,}`, `,\!`) go.
 */
export function cleanLatex(text: string): string {
  let out = withoutEmphasis(withoutLooseEnds(toAscii(text)));
  // Numbers in lines are no difference: 0, then -1.
  if (LINES.test(out)) out = out.replace(/\s*\n\s*/g, ', ');
  if (out.includes('\\')) {
    // Escaped twice, as in a JSON file read as text; in a matrix `\\x` is a new row.
    if (!out.includes('\\begin')) out = out.replace(/\\\\(?=[a-zA-Z]{2})/g, '\\');
    out = out
      // Before anything else sees its second backslash.
      .replace(/\\\\(?:\s*\[[^\]]{0,20}\])?/g, '\\newline ')
      .replace(/,\s*\\!\s*(?=\d)/g, '')
      .replace(/\\!/g, '')
      .replace(/\\[()[\]]/g, ' ')
      .replace(BRACED_ARRAY, '\\begin{cases}$1\\end{cases}')
      .replace(NO_DELIMITER, ' ')
      .replace(ORNAMENTS, ' ')
      .replace(/^\s*\\(?:Rightarrow|implies|Longrightarrow)(?![a-zA-Z])/, '')
      .replace(/\\text\s*\{\s*\\?%\s*\}/g, '\\%')
      .replace(/\\textdegree(?![a-zA-Z])/g, '\\degree ')
      .replace(/\\textdollar(?![a-zA-Z])\s*/g, '\\$')
      .replace(/\\cr(?![a-zA-Z])/g, '\\newline ')
      .replace(/\\Bbb(?![a-zA-Z])/g, '\\mathbb')
      // A new line that was escaped with its text.
      .replace(/\\n(?![a-zA-Z])/g, ' ')
      .replace(/[,;]?\s*\\q?quad(?![a-zA-Z])\s*(?=[a-zA-Z]\s*=)/g, ', ')
      .replace(/\\(?:text)?color\s*\{[^{}]*\}|\\underline(?=\s*\{)/g, '')
      .replace(DECORATION, ' ')
      .replace(SPACES, ' ')
      .replace(/\\[dtc]frac(?![a-zA-Z])/g, '\\frac')
      .replace(UNIT_FRACTION, '$1\\text{ $2/$3}')
      .replace(/(\d) *\\Omega(?![a-zA-Z])/g, '$1\\text{ ohms}')
      .replace(/\\(?:lt|gt)(?![a-zA-Z])/g, (word) => (word === '\\lt' ? '<' : '>'))
      .replace(/\\(?:leqslant|leqq|leq)(?![a-zA-Z])/g, '\\le ')
      .replace(/\\(?:geqslant|geqq|geq)(?![a-zA-Z])/g, '\\ge ')
      .replace(/\\neq(?![a-zA-Z])/g, '\\ne ')
      .replace(/\\(?:colon|mathrel|mathbin|mathop|mathord)(?![a-zA-Z])/g, (word) => (word === '\\colon' ? ':' : ''));
  } else if (/[~\t\n\r]/.test(out)) {
    out = out.replace(SPACES, ' ');
  }
  out = out
    .replace(/(\d) *[xX] *(?=10 *\^)/g, '$1\\times ')
    .replace(/^(\d+)(?:st|nd|rd|th)$/, '$1')
    .replace(/^\s*(?:USD|US *\\?\$) *(?=[\d.])/, '\\$')
    .replace(/(\d) *(?:\{\s*\})? *\^ *(?:\{ *o *\}|\{ *\\text *\{ *o *\} *\}|o(?![a-z]))/g, '$1\\degree ')
    .replace(/(\d) *\{ *\} *(?=\^)/g, '$1')
    .replace(/\bUS *(?=\\?\$)/g, '')
    .replace(/^\s*=(?!=)/, '')
    .replace(
      TEMPERATURE,
      (_all, face: string | undefined, letter: string) =>
        `\\text{ ${(face ?? letter).includes('C') ? 'celsius' : 'fahrenheit'}}`,
    );
  if (out.includes('{')) out = withoutBracedCommas(out);
  if (out.includes("'")) out = out.replace(SWISS, (number) => number.replaceAll("'", ''));
  if (out.includes('$')) out = dollars(out);
  if (out.endsWith('...') || out.endsWith('dots')) out = out.replace(CONTINUED, continuedDecimal);
  if (out.includes('base')) out = out.replace(BASE, (_all, digits: string, base: string) => `${digits}_{${base}}`);
  if (/\\(?:overline|bar|dot)/.test(out)) out = out.replace(REPEATING, repeatingDecimal);
  return trimPunctuation(out);
}

const TEMPERATURE =
  /(?:\^\s*\{?\s*\\circ\s*\}?|\\degree)\s*(?:\\(?:text|mathrm|textrm)\s*\{\s*([CF])\s*\}|([CF])(?![a-zA-Z]))/g;
const REPEATING = /(\d{0,20})\.(\d{0,40})\\(?:overline|bar|dot)\s*\{?(\d{1,40})\}?(?:(\d{0,20})\\dot\s*\{?(\d)\}?)?/g;
/** `5\frac{\text{m}}{\text{s}}`. */
const UNIT_FRACTION = /(\d *)\\frac *\{ *\\(?:text|mathrm) *\{([^{}]*)\} *\} *\{ *\\(?:text|mathrm) *\{([^{}]*)\} *\}/g;
const LINES = /^[-+]?[\d./]+(?:[^\S\n]*\n\s*[-+]?[\d./]+)+$/;
const SWISS = /(?<![\d.'])\d{1,3}(?:'\d{3})+(?![\d'])/g;

/** Digits that come again and again before the dots. */
const CONTINUED = /(\d{1,20})\.(\d{0,20}?)(\d{1,10}?)(\3{1,20})(?:\.{3}|\\[lc]?dots)$/;
const BASE = /(\d{1,200}) *(?:\\text *\{ *)?(?:\( *base *|(?:in )?base )(\d{1,2}) *\)?\}?$/;

/** `0.333...` as a fraction; `0.33...` says too little. */
function continuedDecimal(all: string, whole: string, fixed: string, repeated: string, again: string): string {
  return repeated.length + again.length < 3 ? all : repeatingDecimal(all, whole, fixed, repeated);
}

/** `0.1\overline{6}` as a fraction. */
function repeatingDecimal(
  _all: string,
  whole: string,
  fixed: string,
  first: string,
  middle?: string,
  last?: string,
): string {
  // Dots stand over the first and the last digit that repeats.
  const repeated = typeof last === 'string' ? `${first}${middle}${last}` : first;
  const shift = 10n ** BigInt(fixed.length);
  const period = 10n ** BigInt(repeated.length) - 1n;
  const numerator = BigInt(`${whole}${fixed}` || '0') * period + BigInt(repeated);
  return `{(${numerator}/${shift * period})}`;
}

/** Without the asterisks of Markdown around the whole. */
function withoutEmphasis(text: string): string {
  const inside = /^\*\*([^*]+)\*\*[.]?$/.exec(text)?.[1];
  return inside === undefined ? text : withoutLooseEnds(inside);
}

/** `1{,}000` is a thousand; `0{,}5` and `2{,}75` have a decimal comma. */
function withoutBracedCommas(text: string): string {
  return text
    .replace(/(?<![\d}])(\d{1,20})\s*\{\s*,\s*\}\s*(\d{1,2}|\d{4,20})(?![\d{])/g, '$1.$2')
    .replace(/(?<![\d}])0\s*\{\s*,\s*\}\s*(?=\d)/g, '0.')
    .replace(/(\d)\s*\{\s*,?\s*\}\s*(?=\d{3}(?!\d))/g, '$1');
}

/** Delimiters become spaces; a `$` that closes nothing and stands at a digit is money. */
function dollars(text: string): string {
  const plain = text.match(/(?<!\\)\$+/g) ?? [];
  if (plain.length % 2 === 0) return text.replace(/(?<!\\)\$+/g, ' ');
  return text.replace(/(?<!\\)\$+(\s*[\d.])?/g, (_all, digit: string | undefined) =>
    digit === undefined ? ' ' : `\\$${digit}`,
  );
}

/** Without spaces and backslashes that end the text: rules for its end look at what is left. */
function withoutLooseEnds(text: string): string {
  let end = text.length;
  while (end > 0 && /[\s\\]/.test(text[end - 1] as string)) end -= 1;
  return text.slice(0, end).trimStart();
}

/** Without spaces around it and the punctuation that ends a sentence. */
function trimPunctuation(whole: string): string {
  // `0.1234...` has more digits than are written.
  const text = whole.replace(/(\d)\.{3,}\s*$/, '$1\\ldots ');
  let end = text.length;
  for (let before = -1; before !== end; ) {
    before = end;
    while (end > 0 && /[\s.,;:\\]/.test(text[end - 1] as string)) end -= 1;
    if (text.endsWith('\\newline', end)) end -= '\\newline'.length;
  }
  let begin = 0;
  while (begin < end && /[\s,;:]/.test(text[begin] as string)) begin += 1;
  return text.slice(begin, end);
}
