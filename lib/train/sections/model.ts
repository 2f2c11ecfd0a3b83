/** [model]: the policy. */
import { choice, requiredPath, section } from '../config-file.js';

export const model = section(
  {
    path: requiredPath({
      doc: 'Folder in Hugging Face layout: config.json, safetensors, tokenizer.json. Model types: llama, qwen2, qwen3.',
      paper: 'Qwen2.5-3B, Llama3.2-3B-Instruct, Qwen3-8B-Base',
    }),
    device: choice(['auto', 'cpu', 'cuda'], 'auto', {
      doc: 'Where to compute; "auto" takes a GPU this build can use.',
    }),
    dtype: choice(['float32'], 'float32', {
      doc: 'Type of the weights that are trained. Files in bf16 or fp16 are converted.',
    }),
  },
  'The policy.',
);
