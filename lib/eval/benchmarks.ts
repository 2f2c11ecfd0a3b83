/** The benchmarks by name: what they are called, where their problems come from, how their answers are compared. */
import { distance } from 'fastest-levenshtein';
import { InvalidArgumentError } from '../errors.js';

/** A benchmark of mathematical problems with a final answer each. */
export interface Benchmark {
  readonly name: string;
  /** As the paper's tables print it. */
  readonly title: string;
  /** How many problems it has; another number is told, because its accuracy would not be comparable. */
  readonly problems: number;
  /** On the Hugging Face hub: a data set at a fixed commit or branch, and the files (`*` for any text) to read. */
  readonly source: { readonly dataset: string; readonly files: string; readonly revision?: string };
  /** Whose the problems are. None of them is part of this package. */
  readonly licence: string;
  /** Relative tolerance of numeric answers, where the benchmark's authors set one. */
  readonly tolerance?: number;
}

/** In the order of the paper's tables, then those of development. */
export const BENCHMARKS: readonly Benchmark[] = [
  {
    name: 'minerva_math',
    title: 'Minerva Math',
    problems: 272,
    source: { dataset: 'zwhe99/simplerl-minerva-math', files: '*test*' },
    licence: 'MIT OpenCourseWare, CC BY-NC-SA 4.0; collected by Lewkowycz et al. 2022',
    // "OCWCourses" of Lewkowycz et al.: measured and computed quantities, gold answers rounded to a few digits.
    tolerance: 0.01,
  },
  {
    name: 'olympiadbench',
    title: 'Olympiad Bench',
    problems: 675,
    source: { dataset: 'zwhe99/simplerl-OlympiadBench', files: '*test*' },
    licence: 'Apache-2.0 (He et al. 2024); the English, text-only, open-ended mathematics part',
  },
  {
    name: 'amc23',
    title: 'AMC 23',
    problems: 40,
    source: { dataset: 'math-ai/amc23', files: '*test*' },
    licence: 'statements: Mathematical Association of America, all rights reserved',
  },
  {
    name: 'aime24',
    title: 'AIME 24',
    problems: 30,
    source: { dataset: 'HuggingFaceH4/aime_2024', files: 'data/train-*.parquet' },
    licence: 'statements: Mathematical Association of America, all rights reserved',
  },
  {
    name: 'aime25',
    title: 'AIME 25',
    problems: 30,
    source: { dataset: 'math-ai/aime25', files: 'test.jsonl' },
    licence: 'statements: Mathematical Association of America, all rights reserved',
  },
  {
    name: 'math500',
    title: 'MATH-500',
    problems: 500,
    source: { dataset: 'HuggingFaceH4/MATH-500', files: 'test.jsonl' },
    licence: 'MIT (Hendrycks et al. 2021; the split of Lightman et al. 2023)',
  },
  {
    name: 'gsm8k',
    title: 'GSM8K',
    problems: 1319,
    source: { dataset: 'openai/gsm8k', files: 'main/test-*.parquet' },
    licence: 'MIT (Cobbe et al. 2021)',
  },
];

/** Names, for options and messages. */
export const BENCHMARK_NAMES: readonly string[] = BENCHMARKS.map(({ name }) => name);

/** @throws InvalidArgumentError naming those that there are, the nearest first */
export function benchmarkOf(name: string): Benchmark {
  const found = BENCHMARKS.find((benchmark) => benchmark.name === name);
  if (found !== undefined) return found;
  const [nearest] = [...BENCHMARK_NAMES].sort((x, y) => distance(x, name) - distance(y, name));
  throw new InvalidArgumentError(
    `there is no benchmark '${name}'; did you mean '${nearest}'? Known: ${BENCHMARK_NAMES.join(', ')}`,
  );
}
