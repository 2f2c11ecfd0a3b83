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
    chatTemplate: optionalPath('', {
      doc: "A file with a chat template (Jinja), instead of the model's own; it is saved with the model.",
    }),
    device: choice(['auto', 'cpu', 'cuda'], 'auto', {
      doc: 'Where to compute; "auto" takes a GPU this build can use.',
    }),
    dtype: choice(['float32', 'bfloat16'], 'float32', {
      doc: 'Type of the weight matrices that compute. With "bfloat16" the optimizer keeps a float32 master copy; all else stays float32. Files in another type are converted.',
    }),
  },
  'The policy.',
);
