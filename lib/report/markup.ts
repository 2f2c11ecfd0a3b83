/** HTML made of text that strangers wrote: what is not markup by its type is escaped. */
import { escapeHtml } from './client/look.js';

/** HTML that is safe to put into a page. Only {@link html} makes it. */
export class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
  toString(): string {
    return this.text;
  }
}

type Content = Markup | string | number | null | undefined | false | readonly Content[];

/** A template whose values are escaped, but for markup and lists of it; null, undefined and false are nothing. */
export function html(parts: TemplateStringsArray, ...values: readonly Content[]): Markup {
  return new Markup(parts.reduce((text, part, i) => text + show(values[i - 1]) + part));
}

function show(value: Content): string {
  if (value instanceof Markup) return value.text;
  if (Array.isArray(value)) return value.map(show).join('');
  return value === null || value === undefined || value === false ? '' : escapeHtml(visible(String(value)));
}

/** Control characters and those that turn the direction of writing could hide what is there; they are shown. */
function visible(text: string): string {
  return text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is made visible
    /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
