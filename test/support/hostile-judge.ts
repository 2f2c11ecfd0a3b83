/** A comparison for the tests of the verifier pool: does what its prediction says. */
import type { Verdict, VerifyItem } from '../../lib/verify/judge.js';

const hoard: unknown[] = [];

export function judge({ prediction = '', gold }: VerifyItem): Verdict {
  switch (prediction) {
    case 'hang':
      for (;;);
    case 'hang in a regular expression':
      return verdict(/^(a+)+$/.test(`${'a'.repeat(60)}b`));
    case 'hang in a power':
      return verdict(9n ** (9n ** 9n) > 0n);
    case 'allocate':
      for (;;) hoard.push({ value: Math.random() });
    case 'allocate at once':
      hoard.push(JSON.stringify(Array.from({ length: 1e8 }, () => 'x')));
      return verdict(true);
    case 'allocate outside the heap':
      for (;;) hoard.push(Buffer.alloc(2 ** 24, 1));
    case 'throw':
      throw new TypeError('thrown on purpose');
    case 'throw a string':
      throw 'a string, on purpose';
    case 'overflow the stack':
      return verdict(deep(0) > 0);
    case 'exit':
      return process.exit(3);
    case 'die':
      process.kill(process.pid, 'SIGKILL');
      for (;;);
    case 'undecided':
      return { equal: false, outcome: 'undecided', answer: prediction, reason: 'too hard' };
    default:
      return { ...verdict(prediction === gold), reason: process.execArgv.join(' ') };
  }
}

const deep = (n: number): number => deep(n + 1) + 1;

function verdict(equal: boolean): Verdict {
  return { equal, outcome: equal ? 'equal' : 'different', answer: null, reason: '' };
}
