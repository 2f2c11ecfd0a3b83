/** Names that libstdc++'s std::hash<std::string> (MurmurHash64A, one seed for all) takes to one value. */

const WORD = 2n ** 64n;
const MULTIPLIER = 0xc6a4a7935bd1e995n;
const SEED = 0xc70f6907n;
/** As many of each kind of word as there are digits. */
const DIGITS = 8;

const inverse = (() => {
  let x = MULTIPLIER; // Newton's iteration: each step doubles the bits that are right
  for (let i = 0; i < 6; i++) x = (x * (2n - MULTIPLIER * x)) % WORD;
  return ((x % WORD) + WORD) % WORD;
})();

const mix = (word: bigint) => {
  const k = (word * MULTIPLIER) % WORD;
  return ((k ^ (k >> 47n)) * MULTIPLIER) % WORD;
};
const unmix = (mixed: bigint) => {
  const k = (mixed * inverse) % WORD;
  return ((k ^ (k >> 47n)) * inverse) % WORD;
};

const isName = (word: bigint) => {
  for (let i = 0n; i < 64n; i += 8n) {
    const byte = Number((word >> i) & 0xffn);
    if (byte < 0x20 || byte > 0x7e || byte === 0x22 || byte === 0x5c) return false;
  }
  return true;
};
const textOf = (word: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(word);
  return bytes.toString('latin1');
};

/** A word that a counter makes. */
function letters(n: number): bigint {
  let word = 0n;
  for (let i = 0, rest = n; i < 8; i++, rest = Math.floor(rest / 64)) word = word * 256n + BigInt(0x30 + (rest % 64));
  return word;
}

/**
 * 2^bits names of equal length and hash. Each is a sequence of pairs of words; whichever pair is taken, the state after
 * it is the same.
 */
export function collidingNames(bits: number): string[] {
  const stages = Math.ceil(bits / Math.log2(DIGITS));
  const length = BigInt(stages * 16);
  let state = (SEED ^ (length * MULTIPLIER)) % WORD;
  let names = [''];
  let counter = 1;
  for (let stage = 0; stage < stages; stage++) {
    let target: bigint | null = null;
    const pairs: string[] = [];
    while (pairs.length < DIGITS) {
      const first = letters(counter++ * 2_654_435_761);
      const middle = ((state ^ mix(first)) * MULTIPLIER) % WORD;
      if (!isName(first)) continue;
      if (target === null) target = middle ^ mix(letters(12_345_678_901));
      const second = unmix(middle ^ target);
      if (isName(second)) pairs.push(textOf(first) + textOf(second));
    }
    state = ((target as bigint) * MULTIPLIER) % WORD;
    names = pairs.flatMap((pair) => names.map((name) => name + pair));
  }
  return [...new Set(names)].slice(0, 2 ** bits);
}
