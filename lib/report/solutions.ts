/** Which responses a report shows, and how many different right ones there are. */

import { parseResponse } from '../tasks/countdown.js';
import { expressionText } from '../tasks/countdown-expression.js';
import type { Completion } from './completions.js';
import type { RunData } from './read-run.js';

/** Equal responses of one stage, drawn so many times. */
export interface SampledResponse {
  text: string;
  reward: number | null;
  truncated: boolean;
  times: number;
  /** The solution; null where it is not right. Equal for the same solution in other words. */
  solution: string | null;
}

/** What one stage said to one prompt. */
export interface StageSamples {
  stage: 1 | 2;
  samples: number;
  correct: number;
  distinct: number;
  responses: SampledResponse[];
}

/** One prompt of an iteration. */
export interface PromptSamples {
  problem: string;
  prompt: string;
  stages: StageSamples[];
  /** Distinct correct solutions of both stages together. */
  distinct: number;
}

/** One iteration of a run. */
export interface IterationSamples {
  iteration: number;
  prompts: PromptSamples[];
}

/** A response counts as right when its reward is positive. */
const isRight = ({ reward }: Pick<Completion, 'reward'>): boolean => reward !== null && reward > 0;

/**
 * What makes two right responses the same solution: of countdown the expression without its scratch values, elsewhere
 * the text up to white space.
 */
export function solutionOf(task: unknown, { problem, response }: Completion): string {
  if (task === 'countdown') {
    const numbers = problem.split('>')[0]?.split(',').length ?? 0;
    const expression = parseResponse(response, numbers);
    if (expression !== null) return expressionText(expression);
  }
  return response.trim().replace(/\s+/g, ' ');
}

/** The newest iteration of a run whose responses are all there; null without any. */
export function newestSamples(run: Pick<RunData, 'completions' | 'config'>): IterationSamples | null {
  const iteration = run.completions.at(-1)?.iteration;
  if (iteration === undefined) return null;
  const own = run.completions.filter((completion) => completion.iteration === iteration);
  const groups = new Map<string, Completion[]>();
  for (const completion of own) {
    const group = groups.get(completion.problem);
    if (group === undefined) groups.set(completion.problem, [completion]);
    else group.push(completion);
  }
  return { iteration, prompts: [...groups.values()].map((group) => promptSamples(run.config.task?.name, group)) };
}

function promptSamples(task: unknown, group: readonly Completion[]): PromptSamples {
  const [{ problem, prompt }] = group as [Completion, ...Completion[]];
  const stages = ([1, 2] as const)
    .map((stage) =>
      stageSamples(
        task,
        stage,
        group.filter((one) => one.stage === stage),
      ),
    )
    .filter(({ samples }) => samples > 0);
  return { problem, prompt, stages, distinct: solutionsOf(stages).size };
}

function stageSamples(task: unknown, stage: 1 | 2, own: readonly Completion[]): StageSamples {
  const responses = new Map<string, SampledResponse>();
  for (const completion of own) {
    const { response: text, reward, finishReason } = completion;
    const key = JSON.stringify([text, reward]);
    const known = responses.get(key);
    if (known !== undefined) known.times += 1;
    else {
      responses.set(key, {
        text,
        reward,
        truncated: finishReason === 'length',
        times: 1,
        solution: isRight(completion) ? solutionOf(task, completion) : null,
      });
    }
  }
  const list = [...responses.values()].sort((a, b) => Number(isRight(b)) - Number(isRight(a)) || b.times - a.times);
  const result = { stage, samples: own.length, correct: own.filter(isRight).length, responses: list };
  return { ...result, distinct: solutionsOf([result]).size };
}

/** The different solutions of some stages. */
export function solutionsOf(stages: readonly Pick<StageSamples, 'responses'>[]): Set<string> {
  return new Set(stages.flatMap(({ responses }) => responses.flatMap(({ solution }) => solution ?? [])));
}

/** The first `count` prompts with right and wrong responses, filled up with the first others; in their order. */
export function chosenPrompts({ prompts }: IterationSamples, count: number): PromptSamples[] {
  const mixed = prompts.filter(({ stages }) => {
    const correct = stages.reduce((sum, stage) => sum + stage.correct, 0);
    return correct > 0 && correct < stages.reduce((sum, stage) => sum + stage.samples, 0);
  });
  const chosen = new Set([...mixed, ...prompts].slice(0, Math.max(count, 0)));
  for (const prompt of prompts) if (chosen.size < count) chosen.add(prompt);
  return prompts.filter((prompt) => chosen.has(prompt));
}

/** Means over the prompts of an iteration. */
export interface DistinctMeans {
  /** Distinct correct solutions a prompt, by stage. */
  stages: { stage: 1 | 2; distinct: number }[];
  /** Of both stages together. */
  together: number;
  /** Solutions a prompt that stage 2 found and stage 1 did not; null without a second stage. */
  newInStage2: number | null;
}

/** How many distinct correct solutions the stages of an iteration found, a prompt. */
export function distinctMeans({ prompts }: IterationSamples): DistinctMeans {
  const mean = (count: (prompt: PromptSamples) => number): number =>
    prompts.reduce((sum, prompt) => sum + count(prompt), 0) / Math.max(1, prompts.length);
  const stages = ([1, 2] as const)
    .filter((stage) => prompts.some((prompt) => prompt.stages.some((one) => one.stage === stage)))
    .map((stage) => ({
      stage,
      distinct: mean((prompt) => prompt.stages.find((one) => one.stage === stage)?.distinct ?? 0),
    }));
  const found = (prompt: PromptSamples, stage: 1 | 2): Set<string> =>
    solutionsOf(prompt.stages.filter((one) => one.stage === stage));
  return {
    stages,
    together: mean(({ distinct }) => distinct),
    newInStage2:
      stages.length < 2
        ? null
        : mean((prompt) => {
            const first = found(prompt, 1);
            return [...found(prompt, 2)].filter((solution) => !first.has(solution)).length;
          }),
  };
}
