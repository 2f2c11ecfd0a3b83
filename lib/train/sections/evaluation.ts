/** [eval]: evaluation during training. */
import { flag, integer, integers, number, paths, section, strings } from '../config-file.js';

export const evaluation = section(
  {
    every: integer(0, { min: 0 }, { doc: 'Evaluate after every n-th iteration; 0 = never.' }),
    atStart: flag(false, { doc: 'Evaluate before the first iteration too.' }),
    atEnd: flag(false, { doc: 'Evaluate after the last iteration, whatever `every` says.' }),
    splits: strings([], { doc: 'Splits of the task to evaluate on. Empty = all but "train".' }),
    benchmarks: strings([], {
      doc: 'Benchmarks to evaluate on, asked as the task asks: minerva_math, olympiadbench, amc23, aime24, aime25, math500, gsm8k. See docs/evaluation.md.',
      paper: 'Minerva Math, OlympiadBench, AMC 2023, AIME 2024, AIME 2025',
    }),
    benchmarkData: paths({
      doc: 'Files or folders that hold the problems of the benchmarks; what is not there comes from the hub.',
    }),
    maxProblems: integer(
      300,
      { min: 1 },
      { doc: 'Problems per split or benchmark that are decoded greedily, the first ones.' },
    ),
    sampleProblems: integer(100, { min: 1 }, { doc: 'Of these, the problems that are sampled, the first ones.' }),
    greedy: flag(true, { doc: 'Accuracy of greedy decoding.', paper: 'pass@1 by greedy decoding' }),
    samplesPerPrompt: integer(
      64,
      { min: 0 },
      { doc: 'Samples per problem for avg@k, maj@k, pass@k and distinct solutions; 0 = none.' },
    ),
    passK: integers(
      [1, 8, 64],
      { min: 1 },
      { doc: 'The k of maj@k and the unbiased pass@k; those above samplesPerPrompt are left out.' },
    ),
    temperature: number(1, { over: 0 }, { doc: 'Temperature of the samples.', paper: '1.0' }),
    keepResponses: flag(true, {
      doc: 'Keep every response of every evaluation, in evals/iteration-<n>/<set>/responses.jsonl of the run folder.',
    }),
    maxNewTokens: integer(
      0,
      { min: 0 },
      { doc: 'Tokens after which a response is cut off; 0 = rollout.maxNewTokens.' },
    ),
  },
  "Evaluation of the policy (never of theta').",
);
