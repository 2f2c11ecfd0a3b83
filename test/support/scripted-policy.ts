/** A policy that answers what a script says: exact rates, so that every metric is a number known beforehand. */
import type { EvaluationTokenizer } from '../../lib/eval/types.js';
import type { GenerateOptions, Generation, PolicyLike } from '../../lib/policy.js';

/** Responses to a problem. */
export interface Script {
  greedy: string;
  samples: readonly string[];
}

/** Response texts are vocabulary: id 2 + i is the i-th text; a prompt is the id of its problem; 1 ends a response. */
export class ScriptedPolicy {
  readonly calls: { prompts: readonly (readonly number[])[]; options: GenerateOptions }[] = [];
  readonly config = { maxPositionEmbeddings: 64 };
  readonly device = 'cpu';
  readonly tokenizer: EvaluationTokenizer;
  readonly #scripts: Script[];
  readonly #texts: string[] = [];

  /** @param scripts by prompt */
  constructor(scripts: Readonly<Record<string, Script>>) {
    const prompts = Object.keys(scripts);
    this.#scripts = Object.values(scripts);
    this.tokenizer = {
      encodePrompt: (prompt) => {
        const index = prompts.indexOf(typeof prompt === 'string' ? prompt : (prompt.at(-1)?.content ?? ''));
        if (index < 0) throw new Error(`no script for the prompt ${JSON.stringify(prompt)}`);
        return [index];
      },
      decode: (ids) => ids.map((id) => this.#texts[id - 2] ?? '').join(''),
      eosTokenIds: [1],
    };
  }

  /** As the engine takes it. */
  get policy(): PolicyLike {
    return this as unknown as PolicyLike;
  }

  async hash(): Promise<string> {
    return 'scripted';
  }

  async generate(prompts: readonly (readonly number[])[], options: GenerateOptions): Promise<Generation[]> {
    this.calls.push({ prompts, options });
    const { samplesPerPrompt = 1, sampleOffset = 0, temperature = 1 } = options;
    return prompts.flatMap((ids, prompt) =>
      Array.from({ length: samplesPerPrompt }, (_, sample): Generation => {
        const script = this.#scripts[ids[0] as number] as Script;
        const text = temperature === 0 ? script.greedy : script.samples[sampleOffset + sample];
        if (text === undefined) throw new Error(`no sample ${sampleOffset + sample} in the script`);
        // A text that ends in an ellipsis was cut off.
        const cut = text.endsWith('...');
        const tokens = cut ? [this.#id(text)] : [this.#id(text), 1];
        return {
          prompt,
          sample,
          tokens,
          logprob: new Float32Array(tokens.length).fill(-0.5),
          entropy: new Float32Array(tokens.length).fill(0.25),
          finishReason: cut ? 'length' : 'stop',
        };
      }),
    );
  }

  #id(text: string): number {
    if (!this.#texts.includes(text)) this.#texts.push(text);
    return this.#texts.indexOf(text) + 2;
  }
}
