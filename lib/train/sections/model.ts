/** [model]: the policy. */
import { choice, flag, optionalPath, requiredModel, section, text } from '../config-file.js';

export const model = section(
  {
    path: requiredModel({
      doc: 'Folder in Hugging Face layout (config.json, safetensors, tokenizer.json), or owner/name on the Hugging Face hub; a folder that exists wins. Model types: llama, qwen2, qwen3.',
      paper: 'Qwen2.5-3B, Llama3.2-3B-Instruct, Qwen3-8B-Base',
    }),
    revision: text('', { doc: 'Of a model on the hub: branch, tag or commit; "" is main. A commit never changes.' }),
    cacheDir: optionalPath('', {
      doc: 'Where downloads are kept; "" is as HF_HOME and HF_HUB_CACHE say, shared with Python.',
    }),
    offline: flag(false, { doc: 'Use only what was downloaded before. HF_HUB_OFFLINE=1 does the same.' }),
    device: choice(['auto', 'cpu', 'cuda'], 'auto', {
      doc: 'Where to compute; "auto" takes a GPU this build can use.',
    }),
    dtype: choice(['float32'], 'float32', {
      doc: 'Type of the weights that are trained. Files in bf16 or fp16 are converted.',
    }),
  },
  'The policy.',
);
