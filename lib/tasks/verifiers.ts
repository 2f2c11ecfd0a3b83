/** The rules by which a response is right: 1, or wrong: 0. */
import { verifyMath } from '../verify/index.js';
import { type Answer, acceptedAnswers, afterHashes } from './answers.js';
import type { RewardFunction } from './types.js';

/**
 * - `math`: the final answer that the response gives is mathematically equal to the gold one.
 * - `gsm8k`: the response ends in `#### x`, as GSM8K's own solutions do, and x is the same number.
 * - `exact`: the trimmed response is the gold answer, letter for letter.
 *
 * Of several accepted answers one is enough.
 */
export type VerifierName = (typeof VERIFIERS)[number];

export const VERIFIERS = ['math', 'gsm8k', 'exact'] as const;

/** The rule as a reward: 1 for a right response, 0 otherwise (Eq. 1). The same function for the same name. */
export function verifierReward(name: VerifierName): RewardFunction {
  return REWARDS[name];
}

/** The rule that a reward function is, or null for one of somebody's own. */
export function verifierName(reward: unknown): VerifierName | null {
  return VERIFIERS.find((name) => REWARDS[name] === reward) ?? null;
}

/** What cannot be decided within the verifier's bounds of time and memory is wrong, and counted. */
const mathReward: RewardFunction = async (inputs, context) => {
  const verdicts = await verifyMath(
    inputs.map(({ problem, response }) => ({ response, gold: acceptedAnswers(problem.answer as Answer) })),
    context === undefined ? {} : { signal: context.signal },
  );
  const count = (...outcomes: string[]): number => verdicts.filter(({ outcome }) => outcomes.includes(outcome)).length;
  context?.report({
    no_answer: count('no-answer'),
    undecided: count('undecided', 'timeout', 'memory', 'crashed'),
    verify_timeouts: count('timeout'),
  });
  return verdicts.map(({ equal }) => (equal ? 1 : 0));
};

const sameText = (response: string, gold: string): boolean => response.trim() === gold.trim();

/** Only the end of a longer response can hold its final number. */
const MAX_TAIL = 400;

function sameFinalNumber(response: string, gold: string): boolean {
  const given = afterHashes(response.slice(-MAX_TAIL));
  const x = given === null ? null : canonicalNumber(given);
  return x !== null && x === canonicalNumber(afterHashes(gold) ?? gold);
}

/** `$1,072.50` and `01072.5.` are `1072.5`; null for what is no decimal number. */
function canonicalNumber(text: string): string | null {
  // A gold answer is as long as its data set makes it.
  if (text.length > MAX_TAIL) return null;
  const bare = text
    .trim()
    .replace(/^\\?\$/, '')
    .replace(/\.$/, '')
    .replace(/,(?=[0-9]{3}(?![0-9]))/g, '');
  const match = /^([-+]?)0*([0-9]*)(?:\.([0-9]*))?$/.exec(bare);
  if (match === null || !/[0-9]/.test(bare)) return null;
  const [, sign, whole = '', decimals = ''] = match;
  const fraction = decimals.replace(/0+$/, '');
  const size = `${whole === '' ? '0' : whole}${fraction === '' ? '' : `.${fraction}`}`;
  return sign === '-' && size !== '0' ? `-${size}` : size;
}

function textReward(isRight: (response: string, gold: string) => boolean): RewardFunction {
  return (inputs) =>
    inputs.map(({ problem, response }) =>
      acceptedAnswers(problem.answer as Answer).some((gold) => isRight(response, gold)) ? 1 : 0,
    );
}

const REWARDS: Readonly<Record<VerifierName, RewardFunction>> = {
  math: mathReward,
  gsm8k: textReward(sameFinalNumber),
  exact: textReward(sameText),
};
