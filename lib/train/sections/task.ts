/** [task]: what is asked. */

import { PROMPT_STYLES } from '../../tasks/data/prompts.js';
import { TASK_NAMES } from '../../tasks/index.js';
import { choice, flag, integer, integers, paths, section, strings, text } from '../config-file.js';

export const task = section(
  {
    name: choice(TASK_NAMES, 'countdown', {
      doc: 'What is asked: "countdown" (embedded: reach a target from given numbers), "calculator" (embedded: operations modulo 23), "math" (MATH), "gsm8k", "verl" (data in verl\'s layout), or your own prompts and answers, "jsonl" or "parquet". See docs/tasks.md.',
      paper: 'MATH levels 3-5',
    }),
    path: paths({
      doc: 'Files of training problems: .jsonl, .json (both also .gz) or .parquet, with * and ? in names, or hf://datasets/OWNER/NAME/FILE. Empty for "math" and "gsm8k" = from the hub.',
    }),
    evalPath: paths({ doc: 'Files of the problems to evaluate on, the split "test".' }),
    promptColumn: text('', {
      doc: 'Column of the prompt, a text or a list of chat messages; dots lead into structs and lists ("prompt.0.content"). Empty = the task\'s own; else the first of prompt, problem, question.',
    }),
    answerColumn: text('', {
      doc: 'Column of the gold answer ("reward_model.ground_truth"). Empty = the task\'s own; else the first of answer, answers.',
    }),
    metaColumns: strings(['*'], {
      doc: 'Columns kept beside prompt and answer, for rewards of your own; ["*"] = all, [] saves memory.',
    }),
    promptStyle: choice(['auto', ...PROMPT_STYLES], 'auto', {
      doc: 'How a text becomes a prompt: "plain", "chat" (a user message in the tokenizer\'s chat template), "qwen-boxed" and "qwen-math" (chats that ask for steps and a boxed answer), "simplerl" (plain text for base models). "auto" = "qwen-boxed" for "math" and "gsm8k", else "plain".',
    }),
    template: text('', {
      doc: "Text or user message of a prompt; {prompt} stands for the row's text. Empty = that of promptStyle.",
    }),
    system: text('', { doc: 'System message of a chat. Empty = that of promptStyle.' }),
    levels: integers(
      [3, 4, 5],
      { min: 1 },
      { doc: 'For "math": levels of difficulty to train on; [] = all.', paper: '3, 4, 5' },
    ),
    maxPromptTokens: integer(
      1024,
      { min: 1 },
      { doc: 'Prompts with more tokens are left out, and their number is reported.', paper: '1024' },
    ),
    maxProblems: integer(0, { min: 0 }, { doc: 'Train on so many problems at most, the first ones; 0 = all.' }),
    shuffleSeed: integer(
      -1,
      { min: -1 },
      {
        doc: 'Shuffle every split by this seed when it is read, before maxProblems; -1 = order of the files. Training goes through its problems in random order anyway (run.seed).',
      },
    ),
    dropEvalPrompts: flag(false, {
      doc: 'Leave out of training what is asked in the evaluation files too. Counted in any case; done by itself for "math" from the hub.',
    }),
  },
  'What is asked. "countdown" and "calculator" read `name` and `maxPromptTokens` alone.',
);
