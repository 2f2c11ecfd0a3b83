/**
 * The alphabet of byte-level vocabularies: each byte is written as one printable character. The printable ones of
 * Latin-1 stand for themselves, the other 68 are U+0100, U+0101, ... in the order of their value.
 */
const ALPHABET: readonly string[] = alphabet();
const BYTES: ReadonlyMap<string, number> = new Map(ALPHABET.map((character, byte) => [character, byte]));

function alphabet(): string[] {
  const printable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : 0x100 + others++));
}

/** The bytes a token stands for. One that has characters outside of the alphabet (an added token) is its own text. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTES.get(character);
    if (byte === undefined) return Buffer.from(token, 'utf8');
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** How a byte-level vocabulary writes a text. */
export function byteLevelText(text: string): string {
  return Array.from(Buffer.from(text, 'utf8'), (byte) => ALPHABET[byte]).join('');
}
