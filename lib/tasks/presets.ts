/** Data sets whose columns, prompts and answers are known. */
import { InvalidFileError } from '../errors.js';
import { checkOptions, type OptionKeys } from '../options.js';
import { lastBoxed } from '../verify/index.js';
import { afterHashes } from './answers.js';
import type { PromptStyle } from './data/prompts.js';
import { columnValue, type Row, shown } from './data/rows.js';
import { DATASET_KEYS, type DatasetOptions, type DatasetRules, datasetTask } from './dataset.js';
import type { Task } from './types.js';

/** Options of a preset: those of a data set, all with defaults of its own. */
export type PresetOptions = Omit<DatasetOptions, 'files'> & Partial<Pick<DatasetOptions, 'files'>>;

export interface MathOptions extends PresetOptions {
  /** Levels of difficulty that are trained on, of 1 to 5; [] = all. Default [3, 4, 5], as in the paper. */
  levels?: readonly number[];
}

const MATH_KEYS: OptionKeys<MathOptions> = { ...DATASET_KEYS, levels: true };

const SUBJECTS = [
  'algebra',
  'counting_and_probability',
  'geometry',
  'intermediate_algebra',
  'number_theory',
  'prealgebra',
  'precalculus',
];

/** Where the presets' data lie on the hub. MATH: train is all of it, test is MATH-500, which must not be trained on. */
export const HUB_FILES = {
  math: {
    train: SUBJECTS.flatMap((subject) =>
      ['train', 'test'].map(
        (part) => `hf://datasets/EleutherAI/hendrycks_math/${subject}/${part}-00000-of-00001.parquet`,
      ),
    ),
    test: 'hf://datasets/HuggingFaceH4/MATH-500/test.jsonl',
  },
  gsm8k: {
    train: 'hf://datasets/openai/gsm8k/main/train-00000-of-00001.parquet',
    test: 'hf://datasets/openai/gsm8k/main/test-00000-of-00001.parquet',
  },
} as const;

const MATH_RULES: DatasetRules = {
  promptColumns: ['problem', 'question', 'prompt'],
  answerColumns: ['answer', 'answers', 'solution'],
  answerOf: (value, column, where) => {
    if (column !== 'solution' || typeof value !== 'string') return value;
    const answer = lastBoxed(value);
    if (answer !== null) return answer;
    throw new InvalidFileError(
      `${where}: "solution" has no \\boxed{...} to take the answer from, and there is no "answer"`,
    );
  },
};

const GSM8K_RULES: DatasetRules = {
  promptColumns: ['question', 'problem', 'prompt'],
  answerColumns: ['answer'],
  answerOf: (value, column, where) => {
    if (typeof value !== 'string') return value;
    const answer = afterHashes(value);
    if (answer !== null) return answer;
    throw new InvalidFileError(`${where}: "${column}" has no "#### x" to take the answer from, got ${shown(value)}`);
  },
};

const VERL_RULES: DatasetRules = {
  promptColumns: ['prompt'],
  answerColumns: ['reward_model.ground_truth'],
};

/** How each preset asks where nothing else is said. */
export const PRESET_STYLES = { math: 'qwen-boxed', gsm8k: 'qwen-boxed', verl: 'plain' } as const satisfies Record<
  string,
  PromptStyle
>;

/**
 * MATH (Hendrycks et al. 2021), levels 3 to 5 for training: the paper's set. Rows are `problem`, `level` (3 or
 * "Level 3") and `answer`, or `solution` whose last box is the answer. Without files: MATH without MATH-500 to train on
 * and MATH-500 as the split `test`, from the hub.
 */
export async function mathTask(given: MathOptions = {}): Promise<Task> {
  checkOptions(given, MATH_KEYS, 'mathTask');
  const { levels = [3, 4, 5], files, ...options } = given;
  const { filter } = options;
  const byLevel = (row: Readonly<Row>, split: string, where: string): boolean =>
    split !== 'train' || levels.length === 0 || levels.includes(levelOf(row, where));
  return datasetTask(
    {
      name: 'math',
      promptStyle: PRESET_STYLES.math,
      dropEvalPrompts: files === undefined || files.train === HUB_FILES.math.train,
      ...options,
      files: files ?? HUB_FILES.math,
      filter: (row, split, where) => byLevel(row, split, where) && (filter === undefined || filter(row, split, where)),
    },
    MATH_RULES,
  );
}

/** NaN for a problem whose level is not known ("Level ?"). */
function levelOf(row: Readonly<Row>, where: string): number {
  const value = columnValue(row, 'level');
  if (typeof value === 'number') return value;
  if (typeof value === 'string') return Number(/^(?:Level )?([1-5])$/.exec(value.trim())?.[1] ?? Number.NaN);
  throw new InvalidFileError(
    `${where}: "level" must be 1 to 5 or "Level 1" to "Level 5", got ${shown(value)}; levels = [] trains on every row`,
  );
}

/** GSM8K (Cobbe et al. 2021): rows are `question` and `answer`, a solution that ends in `#### x`. Default: from the hub. */
export async function gsm8kTask(given: PresetOptions = {}): Promise<Task> {
  checkOptions(given, DATASET_KEYS, 'gsm8kTask');
  const { files = HUB_FILES.gsm8k, ...options } = given;
  return datasetTask({ name: 'gsm8k', promptStyle: PRESET_STYLES.gsm8k, ...options, files }, GSM8K_RULES);
}

/**
 * The layout of verl's data: `prompt` is a chat, `reward_model.ground_truth` the answer; `data_source`, `ability` and
 * `extra_info` are kept in `problem.meta`. Usually Parquet.
 */
export async function verlTask(options: DatasetOptions): Promise<Task> {
  checkOptions(options, DATASET_KEYS, 'verlTask');
  return datasetTask({ name: 'verl', format: 'parquet', promptStyle: PRESET_STYLES.verl, ...options }, VERL_RULES);
}
