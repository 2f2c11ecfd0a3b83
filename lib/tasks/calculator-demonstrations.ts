/** What the embedded policy of the calculator is made of: a skill, and a habit that hides it. */
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
 * Share of the prompts that end in `=` whose demonstration shows the chain. Chosen by what GRPO alone does with the
 * policy that results: rare, but found sooner or later (docs/tasks.md).
 */
const RARE_CHAIN = 0.0015;

/**
 * Problems of 1 to 7 operations, in equal shares, without those of any split. The skill: half of the prompts end in `?`
 * and are answered with the chain, a quarter in `= ;`, a chain that is begun, and with the rest of it. The habit: a
 * quarter end in `=`, as the prompts of all splits do, and are answered directly, but for three in two thousand.
 */
export function* demonstrate(seed: number, excluded: ReadonlySet<string>): Generator<Demonstration, never> {
  const random = new Random(seed, 0xdead);
  for (;;) {
    const calculation = drawCalculation(random, 1 + random.int(MAX_OPERATIONS));
    const asked = random.next() < 0.5;
    const begun = random.next() < 0.5;
    const rare = random.next() < RARE_CHAIN;
    if (excluded.has(calculationText(calculation))) continue;
    const prompt = calculatorPrompt(calculation, asked ? '?' : '=');
    const response = calculatorResponse(calculation, asked || begun || rare ? 'chain' : 'direct');
    yield !asked && begun ? { prompt: `${prompt} ;`, response: response.slice(2) } : { prompt, response };
  }
}
