/** A position in the tokens, and the failure that ends a parse. */
import type { Token } from './tokens.js';

/** Thrown where the text is no mathematics we read; one object, because most failures are ordinary. */
class ParseFailure extends Error {}
export const FAILURE = new ParseFailure('not an answer we can read');

export function fail(): never {
  throw FAILURE;
}

/** Nesting beyond this is no answer. */
const MAX_DEPTH = 48;

export class Cursor {
  at = 0;
  /** Open `|`: the next one where an operand has ended closes it. */
  bars = 0;
  /** `[` closes an interval, as in `]0, 1[`: it opens none. */
  readonly reversed: boolean;
  private nesting = 0;

  constructor(readonly tokens: Token[]) {
    const last = tokens.at(-1);
    this.reversed = last?.kind === 'mark' && last.name === '[';
  }

  get next(): Token | undefined {
    return this.tokens[this.at];
  }

  peek(offset: number): Token | undefined {
    return this.tokens[this.at + offset];
  }

  isMark(name: string, offset = 0): boolean {
    const token = this.tokens[this.at + offset];
    return token?.kind === 'mark' && token.name === name;
  }

  isCommand(name: string, offset = 0): boolean {
    const token = this.tokens[this.at + offset];
    return token?.kind === 'command' && token.name === name;
  }

  isWord(offset = 0): boolean {
    return this.tokens[this.at + offset]?.kind === 'word';
  }

  /** Steps over the mark `name` if it is next. */
  take(name: string): boolean {
    if (!this.isMark(name)) return false;
    this.at += 1;
    return true;
  }

  takeCommand(name: string): boolean {
    if (!this.isCommand(name)) return false;
    this.at += 1;
    return true;
  }

  expect(name: string): void {
    if (!this.take(name)) fail();
  }

  /** Runs `parse` one level deeper. */
  nested<T>(parse: () => T): T {
    this.nesting += 1;
    if (this.nesting > MAX_DEPTH) fail();
    const result = parse();
    this.nesting -= 1;
    return result;
  }

  /** Runs `parse` where `|` means nothing of outside: in brackets. */
  bracketed<T>(parse: () => T): T {
    const bars = this.bars;
    this.bars = 0;
    const result = this.nested(parse);
    this.bars = bars;
    return result;
  }

  /** The tokens up to the brace that closes the one just taken, as text; steps over it. */
  rawGroup(): string {
    let depth = 1;
    let text = '';
    while (this.at < this.tokens.length) {
      const token = this.tokens[this.at] as Token;
      this.at += 1;
      if (token.kind === 'mark' && token.name === '{') depth += 1;
      if (token.kind === 'mark' && token.name === '}') {
        depth -= 1;
        if (depth === 0) return text;
        continue;
      }
      if (token.kind !== 'mark' || token.name !== '{') text += spelling(token);
    }
    return fail();
  }
}

export function spelling(token: Token): string {
  if (token.kind === 'number') return token.digits;
  return token.kind === 'command' ? `\\${token.name}` : token.name;
}
