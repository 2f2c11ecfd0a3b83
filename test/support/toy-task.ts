/** A task for the table policy: its text is ids joined by spaces, and a response is right when it contains a 3. */
import type { ChatMessage, Problem, RewardFunction, RewardInput, Task } from '../../lib/tasks/types.js';
import type { Iteration, Trainer, TrainerTokenizer } from '../../lib/train/trainer.js';

export const toyTokenizer: TrainerTokenizer = {
  encodePrompt: (prompt: string | readonly ChatMessage[]) =>
    typeof prompt === 'string' && prompt !== '' ? prompt.split(' ').map(Number) : [],
  decode: (ids) => ids.join(' '),
};

export const containsThree = (inputs: readonly RewardInput[]): number[] =>
  inputs.map(({ response }) => (response.split(' ').includes('3') ? 1 : 0));

export function toyTask(options: { reward?: RewardFunction; prompts?: string[] } = {}): Task {
  const prompts = options.prompts ?? ['1', '2', '4', '5', '6', '7', '8', '9'];
  const train = prompts.map((prompt, i): Problem => ({ id: `toy-${i}`, prompt, answer: 3 }));
  return { name: 'toy', splits: { train, test: train.slice(0, 2) }, reward: options.reward ?? containsThree };
}

/** All iterations of a trainer, and the error that ended them; null: none did. */
export async function iterationsOf(trainer: Trainer): Promise<{ iterations: Iteration[]; error: Error | null }> {
  const iterations: Iteration[] = [];
  try {
    for await (const iteration of trainer) iterations.push(iteration);
  } catch (error) {
    return { iterations, error: error as Error };
  }
  return { iterations, error: null };
}
