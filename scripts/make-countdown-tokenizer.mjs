// Writes models/countdown/tokenizer.json and tokenizer_config.json, the tokenizer of the embedded policy: one token per
// word of COUNTDOWN_VOCABULARY (lib/tasks/countdown.ts; a test compares them). `.` ends a response, `_` pads.
//
//   node scripts/make-countdown-tokenizer.mjs [folder]
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const words = [...Array.from({ length: 100 }, (_, value) => `${value}`), '+', '-', '*', '.', '_', '>'];

const tokenizer = {
  version: '1.0',
  truncation: null,
  padding: null,
  // None: `.` must survive decoding without special tokens, because the verifier looks for it.
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: 'WhitespaceSplit' },
  post_processor: null,
  decoder: null,
  model: {
    type: 'WordLevel',
    vocab: Object.fromEntries(words.map((word, id) => [word, id])),
    // An unknown word becomes padding: there is no token to spare for it.
    unk_token: '_',
  },
};

const config = {
  tokenizer_class: 'PreTrainedTokenizerFast',
  unk_token: '_',
  pad_token: '_',
  eos_token: '.',
  add_bos_token: false,
  add_eos_token: false,
  clean_up_tokenization_spaces: false,
  model_max_length: 64,
};

const folder = process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), '..', 'models', 'countdown');
mkdirSync(folder, { recursive: true });
for (const [name, content] of Object.entries({ 'tokenizer.json': tokenizer, 'tokenizer_config.json': config })) {
  writeFileSync(join(folder, name), `${JSON.stringify(content, null, 2)}\n`);
}
