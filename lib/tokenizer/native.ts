/** The native tokenizer: Hugging Face's own implementation, as the Python library has it. */
import { createRequire } from 'node:module';
import type { Tokenizer } from 'tokenizers';
import { InvalidArgumentError, InvalidFileError, LoadError } from '../errors.js';

export type NativeTokenizer = Tokenizer;

/**
 * Longest text, in characters. The library's regular expressions give up after ten million steps at one place (a run of
 * so many spaces is enough), and it then ends the whole process. No prompt is this long.
 */
const MAX_TEXT = 4 * 2 ** 20;
/** So many texts go into one call; each encoding is dropped as soon as its ids are taken. */
const TEXTS_PER_CALL = 1024;

/**
 * Builds a tokenizer from the content of a tokenizer.json, without its truncation and padding: a prompt is never cut
 * or filled up behind one's back.
 *
 * @param path - names the file in errors
 */
export function buildTokenizer(text: string, path: string): NativeTokenizer {
  const { Tokenizer: Native } = loadLibrary();
  try {
    const tokenizer = Native.fromString(text);
    tokenizer.disableTruncation();
    tokenizer.disablePadding();
    return tokenizer;
  } catch (cause) {
    throw new InvalidFileError(`${path}: cannot build this tokenizer: ${(cause as Error).message}`, { cause });
  }
}

function loadLibrary(): typeof import('tokenizers') {
  try {
    return createRequire(import.meta.url)('tokenizers') as typeof import('tokenizers');
  } catch (cause) {
    throw new LoadError(
      `the tokenizer library cannot be loaded (npm package "tokenizers", ${process.platform} ${process.arch}): ` +
        `${(cause as Error).message}. Install the package's dependencies again, on a machine it has a binary for`,
      { cause },
    );
  }
}

/**
 * Ids of many texts, computed outside of JavaScript's thread.
 *
 * @throws InvalidArgumentError for a text that is too long, or that cannot be tokenized
 */
export async function encodeTexts(
  tokenizer: NativeTokenizer,
  texts: readonly string[],
  addSpecialTokens: boolean,
): Promise<number[][]> {
  const at = texts.findIndex((text) => text.length > MAX_TEXT);
  if (at >= 0) {
    const { length } = texts[at] as string;
    throw new InvalidArgumentError(`text ${at} has ${length} characters; at most ${MAX_TEXT} are tokenized`);
  }
  const ids: number[][] = [];
  for (let begin = 0; begin < texts.length; begin += TEXTS_PER_CALL) {
    const part = texts.slice(begin, begin + TEXTS_PER_CALL);
    const encodings = await tokenizer.encodeBatch(part, { addSpecialTokens }).catch((cause: Error) => {
      throw new InvalidArgumentError(`this text cannot be tokenized: ${cause.message}`, { cause });
    });
    for (const encoding of encodings) ids.push(encoding.getIds());
  }
  return ids;
}
