/** Text into tokens. One pass, linear, whatever it holds. */
import { parseDecimal, type Rational } from '../rational.js';
import { table } from '../table.js';
import { isUnitLetter, isUnitWord } from '../units.js';
import { isWord } from '../words.js';

export type Token =
  | { kind: 'number'; value: Rational; digits: string; grouped: boolean; space: boolean }
  /** A letter, a Greek letter or a name that is one variable. */
  | { kind: 'symbol'; name: string; space: boolean }
  /** A command with its backslash gone, or a function written without one. */
  | { kind: 'command'; name: string; space: boolean }
  /** A word of language: a unit, a label, `and`. */
  | { kind: 'word'; name: string; space: boolean }
  /** Punctuation and operators; brackets are `(`, `[`, `\{`, `{`, `|`, `\|`, `<` for angles is `langle`. */
  | { kind: 'mark'; name: string; space: boolean };

/** More than any answer needs. */
const MAX_TOKENS = 3_000;

const GREEK = new Set(
  'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar Re Im aleph odot mho'.split(
    ' ',
  ),
);
const SAME_LETTER = table<string>({
  varepsilon: 'epsilon',
  vartheta: 'theta',
  varrho: 'rho',
  varsigma: 'sigma',
  varphi: 'phi',
});
/** Commands whose braces hold text rather than mathematics. */
const TEXT_COMMANDS = new Set(
  'text textbf textit textrm textsf texttt textnormal mbox hbox textsc emph mathrm mathit mathbf mathsf mathtt mathnormal boldsymbol bm operatorname mathcal mathscr mathfrak'.split(
    ' ',
  ),
);
/** Commands that say nothing; their braces, if any, stay a group. */
const IGNORED = new Set(
  'boxed fbox displaystyle ensuremath mathstrut strut phantom label tag nonumber newcommand color textcolor cdotp'.split(
    ' ',
  ),
);
/** Names that plain text gives functions and constants. */
const PLAIN_COMMANDS = new Map(
  Object.entries({
    sqrt: 'sqrt',
    cbrt: 'cbrt',
    sin: 'sin',
    cos: 'cos',
    tan: 'tan',
    cot: 'cot',
    sec: 'sec',
    csc: 'csc',
    arcsin: 'arcsin',
    arccos: 'arccos',
    arctan: 'arctan',
    asin: 'arcsin',
    acos: 'arccos',
    atan: 'arctan',
    sinh: 'sinh',
    cosh: 'cosh',
    tanh: 'tanh',
    log: 'log',
    ln: 'ln',
    exp: 'exp',
    pi: 'pi',
    abs: 'abs',
    floor: 'floor',
    ceil: 'ceil',
    gcd: 'gcd',
    lcm: 'lcm',
    max: 'max',
    min: 'min',
    infinity: 'infty',
    inf: 'infty',
    infty: 'infty',
    oo: 'infty',
    mod: 'mod',
    theta: 'theta',
    alpha: 'alpha',
    beta: 'beta',
    gamma: 'gamma',
    lambda: 'lambda',
    omega: 'omega',
    phi: 'phi',
    binom: 'binom',
    frac: 'frac',
    union: 'cup',
    pm: 'pm',
  }),
);
const PLAIN_NAME =
  /^(?:arcsin|arccos|arctan|sqrt|cbrt|sinh|cosh|tanh|asin|acos|atan|sin|cos|tan|cot|sec|csc|log|ln|exp|pi)(?![a-z])/;
const NUMBER = /(?:\d+(?:\.\d+|\.(?![\d.])(?=\s*[/*^)]))?|\.\d+)(?:[eE][+-]?\d{1,5}(?![\d.]))?/y;
const GROUPED = /\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d])(?!,\s*\d)/y;
const SPACED = /\d{1,3}(?: \d{3})+(?:\.\d+)?(?!\d| \d)/y;
const COMMAND = /\\([a-zA-Z]+)\*?\s*/y;
const RUN = /[a-zA-Z]+/y;
const NP = /(?:np|math|numpy|sp|sympy)\.(?=[a-z])/y;

export interface TokenOptions {
  /** What `1,234` is outside brackets: one number (the default) or two. */
  commas: 'thousands' | 'list';
  /** What `m` is in `5 m`: a variable (the default) or a unit. */
  letters?: 'variables' | 'units';
}

/** The tokens of a cleaned text, or null where there are too many or a brace never closes. */
export function tokenize(text: string, options: TokenOptions): Token[] | null {
  return new Scanner(text, options).run();
}

class Scanner {
  private readonly tokens: Token[] = [];
  private at = 0;
  private space = false;
  /** Open round, square and set brackets: a comma inside separates. */
  private depth = 0;

  constructor(
    private readonly text: string,
    private readonly options: TokenOptions,
  ) {}

  run(): Token[] | null {
    while (this.at < this.text.length) {
      if (this.tokens.length > MAX_TOKENS) return null;
      const c = this.text[this.at] as string;
      if (c === ' ') {
        this.space = true;
        this.at += 1;
        continue;
      }
      if (!this.step(c)) return null;
      this.space = false;
    }
    return this.tokens;
  }

  private step(c: string): boolean {
    if (c === '\\') return this.command();
    if ((c >= '0' && c <= '9') || (c === '.' && /\d/.test(this.text[this.at + 1] ?? ''))) return this.number();
    if (/[a-zA-Z]/.test(c)) return this.letters();
    if (c === '.' && this.tokens.at(-1)?.kind === 'word') {
      // An abbreviation: `sq. cm`.
      this.at += 1;
      return true;
    }
    const two = this.text.slice(this.at, this.at + 2);
    const three = this.text.slice(this.at, this.at + 3);
    if (three === '...') return this.mark('ldots', 3);
    if (two === '**') return this.mark('^', 2);
    // `5!=120` is a factorial, `x != 3` a relation.
    const glued = two === '!=' && !this.space && this.tokens.at(-1)?.kind === 'number';
    if (two === '<=' || two === '>=' || (two === '!=' && !glued) || two === '==')
      return this.mark(two === '==' ? '=' : two, 2);
    if (two === '+-') return this.mark('pm', 2);
    if ('([{'.includes(c)) this.depth += c === '{' ? 0 : 1;
    if (')]'.includes(c)) this.depth -= 1;
    return this.mark(c, 1);
  }

  private mark(name: string, length: number): boolean {
    this.tokens.push({ kind: 'mark', name, space: this.space });
    this.at += length;
    return true;
  }

  private number(): boolean {
    if (this.depth <= 0 && this.options.commas === 'thousands') {
      const grouped = matchAt(GROUPED, this.text, this.at);
      if (grouped !== null) return this.push(grouped, grouped.replaceAll(',', ''), true);
    }
    const spaced = matchAt(SPACED, this.text, this.at);
    if (spaced !== null) return this.push(spaced, spaced.replaceAll(' ', ''), false);
    const plain = matchAt(NUMBER, this.text, this.at);
    return plain !== null && this.push(plain, plain, false);
  }

  private push(written: string, digits: string, grouped: boolean): boolean {
    const value = parseDecimal(digits);
    if (value === null) return false;
    this.tokens.push({ kind: 'number', value, digits, grouped, space: this.space });
    this.at += written.length;
    return true;
  }

  private letters(): boolean {
    const prefix = matchAt(NP, this.text, this.at);
    if (prefix !== null) this.at += prefix.length;
    const run = matchAt(RUN, this.text, this.at) as string;
    const previous = this.tokens.at(-1);
    const glued = !this.space && (previous?.kind === 'symbol' || previous?.kind === 'command');
    const place = { afterOperand: this.endsOperand(), afterSpace: this.space, first: startsItem(previous) };
    const command = PLAIN_COMMANDS.get(run) ?? PLAIN_COMMANDS.get(run.toLowerCase());
    if (command !== undefined && run.length > 1 && !this.isTimeUnit(run)) {
      this.at += run.length;
      this.tokens.push(
        GREEK.has(command) ? this.symbol(command) : { kind: 'command', name: command, space: this.space },
      );
      return true;
    }
    if (!glued && isWord(run, place)) {
      this.at += run.length;
      this.tokens.push({ kind: 'word', name: run, space: this.space });
      return true;
    }
    if (this.options.letters === 'units' && this.space && previous?.kind === 'number' && isUnitLetter(run)) {
      this.at += 1;
      this.tokens.push({ kind: 'word', name: run, space: true });
      return true;
    }
    return this.product(run);
  }

  /** Letters side by side are factors; `xsin` and `2pix` hold a name. `orB` after a bracket is a word. */
  private product(run: string): boolean {
    const word = /^(?:and|or)(?=[A-Z])/.exec(run);
    if (word !== null && this.tokens.length > 0) {
      this.tokens.push({ kind: 'word', name: word[0], space: this.space });
      this.at += word[0].length;
      return true;
    }
    for (let i = 0; i < run.length; ) {
      const name = PLAIN_NAME.exec(run.slice(i, i + 8));
      if (name !== null) {
        this.tokens.push({
          kind: 'command',
          name: PLAIN_COMMANDS.get(name[0]) as string,
          space: this.space && i === 0,
        });
        i += name[0].length;
      } else {
        this.tokens.push({ kind: 'symbol', name: run[i] as string, space: this.space && i === 0 });
        i += 1;
      }
    }
    this.at += run.length;
    return true;
  }

  private symbol(name: string): Token {
    return { kind: 'symbol', name: SAME_LETTER[name] ?? name, space: this.space };
  }

  private command(): boolean {
    const whole = matchAt(COMMAND, this.text, this.at);
    if (whole === null) return this.escaped();
    const name = whole.replace(/^\\|[\s*]+$/g, '');
    this.at += whole.length;
    if (IGNORED.has(name)) return true;
    if (TEXT_COMMANDS.has(name)) return this.textCommand(name);
    if (GREEK.has(name)) this.tokens.push(this.symbol(name));
    else this.tokens.push({ kind: 'command', name, space: this.space });
    return true;
  }

  private escaped(): boolean {
    const c = this.text[this.at + 1];
    if (c === undefined) {
      this.at += 1;
      return true;
    }
    if (c === '{') this.depth += 1;
    if (c === '}') this.depth -= 1;
    if ('{}|$%&#_'.includes(c)) {
      const name = c === '%' ? '%' : c === '_' || c === '#' || c === '&' ? c : `\\${c}`;
      return this.mark(name, 2);
    }
    this.at += 2;
    return true;
  }

  /** `\text{...}`: its words are words even where letters would be factors. */
  private textCommand(name: string): boolean {
    if (this.text[this.at] !== '{') return true;
    const end = closingBrace(this.text, this.at);
    if (end === null) return false;
    const content = this.text.slice(this.at + 1, end).trim();
    if (/^[a-zA-Z]+$/.test(content) && content.length > 1) {
      const unit = isUnitWord(content.toLowerCase()) && this.endsOperand();
      const command = unit ? undefined : (PLAIN_COMMANDS.get(content) ?? OPERATORS.get(content));
      if (command !== undefined) this.tokens.push({ kind: 'command', name: command, space: this.space });
      else this.tokens.push({ kind: 'word', name: content, space: this.space });
      this.at = end + 1;
      return true;
    }
    const letter = content.replace(/^[~\s]+/, '');
    if (/^[a-zA-Z]$/.test(letter)) {
      // Upright after a number: a unit. Otherwise a letter as any other.
      const unit = 'mgshLNJWVKC'.includes(letter) && this.endsOperand();
      this.tokens.push({ kind: unit ? 'word' : 'symbol', name: letter, space: this.space });
      this.at = end + 1;
      return true;
    }
    if (name.startsWith('math') || name === 'boldsymbol' || name === 'bm' || content === '' || content.includes('\\')) {
      // Mathematics in another face: the braces stay a group.
      return true;
    }
    this.textWords(content);
    this.at = end + 1;
    return true;
  }

  private endsOperand(): boolean {
    const previous = this.tokens.at(-1);
    if (previous?.kind === 'command') return previous.name === 'pi';
    return (
      previous?.kind === 'number' ||
      previous?.kind === 'word' ||
      (previous?.kind === 'mark' && ')}'.includes(previous.name))
    );
  }

  /** `5 sec`, `5 min` with nothing to take the secant or the minimum of. */
  private isTimeUnit(run: string): boolean {
    if (!/^(?:sec|min)$/i.test(run) || !this.endsOperand()) return false;
    return /^\s*(?:$|[.,;)])/.test(this.text.slice(this.at + run.length, this.at + run.length + 3));
  }

  private textWords(content: string): void {
    // `m/s` and `kg m` after a number are units to the letter.
    const units = this.endsOperand() && /^[a-zA-Z]+(?:\s*[/ ]\s*[a-zA-Z]+)*$/.test(content);
    const pieces = content.match(/[a-zA-Z]+(?:'[a-z]+)?|\d+(?:,\d{3})*(?:\.\d+)?|[^\sa-zA-Z\d]/g) ?? [];
    let space = this.space;
    let from = 0;
    for (const piece of pieces) {
      const found = content.indexOf(piece, from);
      space = space || found > from;
      from = found + piece.length;
      if (/^[a-zA-Z]$/.test(piece) && !units) this.tokens.push({ kind: 'symbol', name: piece, space });
      else if (/^[a-zA-Z]/.test(piece)) this.tokens.push({ kind: 'word', name: piece, space });
      else if (/^\d/.test(piece)) {
        const digits = piece.replaceAll(',', '');
        this.tokens.push({
          kind: 'number',
          value: parseDecimal(digits) as Rational,
          digits,
          grouped: digits !== piece,
          space,
        });
      } else if (piece !== '~' && piece !== '$' && piece !== '.')
        this.tokens.push({ kind: 'mark', name: piece, space });
      space = false;
    }
  }
}

const OPERATORS = new Map(
  Object.entries({
    arcsinh: 'arsinh',
    arccosh: 'arcosh',
    arctanh: 'artanh',
    arsinh: 'arsinh',
    arcosh: 'arcosh',
    artanh: 'artanh',
    asinh: 'arsinh',
    acosh: 'arcosh',
    atanh: 'artanh',
    acot: 'arccot',
    asec: 'arcsec',
    acsc: 'arccsc',
    arccot: 'arccot',
    arcsec: 'arcsec',
    arccsc: 'arccsc',
    coth: 'coth',
    sgn: 'sgn',
    sign: 'sgn',
    cis: 'cis',
  }),
);

/** Whether an item begins after `previous`. */
function startsItem(previous: Token | undefined): boolean {
  if (previous === undefined || previous.kind === 'word') return true;
  return previous.kind === 'mark' && [',', ';', ':', '='].includes(previous.name);
}

function matchAt(pattern: RegExp, text: string, at: number): string | null {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? null;
}

/** Where the brace at `open` closes, or null. */
function closingBrace(text: string, open: number): number | null {
  let depth = 0;
  for (let i = open; i < text.length; i += 1) {
    const c = text[i];
    if (c === '\\') i += 1;
    else if (c === '{') depth += 1;
    else if (c === '}') {
      depth -= 1;
      if (depth === 0) return i;
    }
  }
  return null;
}
