/** [task]: what is asked and how it is rewarded. */
import { choice, integer, optionalPath, section, text } from '../config-file.js';

export const task = section(
  {
    name: choice(['countdown', 'jsonl'], 'countdown', {
      doc: 'What is asked: "countdown" (embedded: reach a target from given numbers) or "jsonl" (your own prompts and answers).',
      paper: 'MATH levels 3-5',
    }),
    path: optionalPath('', {
      doc: 'For "jsonl": the file of training prompts, one JSON object a line; may be gzipped.',
    }),
    evalPath: optionalPath('', { doc: 'For "jsonl": the file of prompts to evaluate on.' }),
    promptColumn: text('', {
      doc: 'For "jsonl": the column of the prompt, a text or a list of chat messages. Empty = the first of prompt, problem, question.',
    }),
    answerColumn: text('', {
      doc: 'For "jsonl": the column of the gold answer. Empty = the first of answer, answers.',
    }),
    template: text('{prompt}', {
      doc: 'For "jsonl": what the policy is given; {prompt} stands for the text of the row.',
    }),
    reward: choice(['math', 'exact'], 'math', {
      doc: 'For "jsonl": "math", the final answer is mathematically equal to the gold one; "exact", the trimmed response is.',
      paper: 'a rule-based verifier of the final answer',
    }),
    maxPromptTokens: integer(
      1024,
      { min: 1 },
      { doc: 'Prompts with more tokens are left out, and their number is reported.', paper: '1024' },
    ),
  },
  'What is asked and how it is rewarded: 1 for a right final answer, 0 otherwise (Eq. 1).',
);
