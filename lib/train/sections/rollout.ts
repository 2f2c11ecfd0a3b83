/** [rollout]: sampling. */
import { integer, number, section, stopTokens } from '../config-file.js';

export const rollout = section(
  {
    promptsPerIteration: integer(128, { min: 1 }, { doc: 'Prompts per iteration.', paper: '128' }),
    groupSize: integer(
      8,
      { min: 2 },
      { doc: 'G, samples per prompt. EEPO draws half of them in each stage, so G must be even there.', paper: '8' },
    ),
    maxNewTokens: integer(4096, { min: 1 }, { doc: 'Tokens after which a response is cut off.', paper: '4096' }),
    temperature: number(
      1,
      { over: 0 },
      { doc: 'Sampling temperature; the loss is computed at the same one.', paper: 'not given' },
    ),
    dynamicSampling: integer(
      0,
      { min: 0 },
      {
        doc: "DAPO's dynamic sampling: prompts whose rewards are all equal teach nothing and are replaced by fresh ones, at most so many times in an iteration; then the batch is filled up with them. 0 = off.",
        paper: 'not used',
      },
    ),
    maxRows: integer(
      0,
      { min: 0 },
      { doc: 'Samples drawn at a time; one that has ended makes room for the next. 0 = all. Bounds memory only.' },
    ),
    cacheTokens: integer(
      0,
      { min: 0 },
      {
        doc: 'Tokens that the key-value cache may hold, prompts and responses together; samples wait for room. 0 = as many as there are. Bounds memory only.',
      },
    ),
    stopTokens: stopTokens([], {
      doc: 'Tokens that end a response, as ids or texts such as "<|im_end|>". Empty = the end-of-sequence ids of the model folder, and for chats the token that ends a turn in the chat template.',
    }),
  },
  'Sampling. All of it is from the full distribution: top-p 1, no top-k, as exact ratios need.',
);
