/** What the embedded policy of the calculator is made of: a skill, then a habit that hides it. */
import { InvalidArgumentError } from '../errors.js';
import {
  calculationText,
  calculatorPrompt,
  calculatorResponse,
  drawCalculation,
  MAX_OPERATIONS,
} from './calculator-text.js';
import { Random } from './random.js';
import type { Demonstration } from './types.js';

/**
 * Share of the `habit` demonstrations of prompts that end in `=` which show the chain. Chosen by what GRPO alone does
 * with the policy that results: rare, but found sooner or later (docs/tasks.md).
 */
const RARE_CHAIN = 0.001;

/**
 * Problems of 1 to 7 operations, in equal shares, without those of any split; half of the prompts end in `?`, half in `=`.
 *
 * `skill`: the chain, however the prompt ends. `habit`: the chain where it ends in `?`, which keeps the skill, and the
 * direct answer where it ends in `=`, but for one in a thousand.
 */
export function demonstrate(
  seed: number,
  kind: string,
  excluded: ReadonlySet<string>,
): Generator<Demonstration, never> {
  if (kind !== 'skill' && kind !== 'habit') {
    throw new InvalidArgumentError(`demonstrations: calculator has no kind '${kind}'; it has skill, habit`);
  }
  return stream(new Random(seed, kind === 'skill' ? 0x5111 : 0xab17), kind, excluded);
}

function* stream(
  random: Random,
  kind: 'skill' | 'habit',
  excluded: ReadonlySet<string>,
): Generator<Demonstration, never> {
  for (;;) {
    const calculation = drawCalculation(random, 1 + random.int(MAX_OPERATIONS));
    const asked = random.next() < 0.5;
    const rare = random.next() < RARE_CHAIN;
    if (excluded.has(calculationText(calculation))) continue;
    yield {
      prompt: calculatorPrompt(calculation, asked ? '?' : '='),
      response: calculatorResponse(calculation, kind === 'skill' || asked || rare ? 'chain' : 'direct'),
    };
  }
}
