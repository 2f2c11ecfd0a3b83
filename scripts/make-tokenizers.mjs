// Writes tokenizer.json and tokenizer_config.json of the embedded policies: one token per word of COUNTDOWN_VOCABULARY
// (lib/tasks/countdown.ts) and of CALCULATOR_VOCABULARY (lib/tasks/calculator-text.ts); a test compares them. `.` ends a
// response, `_` pads.
//
//   node scripts/make-tokenizers.mjs [folder]      (default: models)
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const numbers = (count) => Array.from({ length: count }, (_, value) => `${value}`);
const VOCABULARIES = {
  countdown: [...numbers(100), '+', '-', '*', '.', '_', '>'],
  calculator: [...numbers(23), '+', '-', '*', '#', ';', '.', '_', '=', '?'],
};

const tokenizerOf = (words) => ({
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
});

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

const models = process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), '..', 'models');
for (const [name, words] of Object.entries(VOCABULARIES)) {
  mkdirSync(join(models, name), { recursive: true });
  for (const [file, content] of Object.entries({
    'tokenizer.json': tokenizerOf(words),
    'tokenizer_config.json': config,
  })) {
    writeFileSync(join(models, name, file), `${JSON.stringify(content, null, 2)}\n`);
  }
}
