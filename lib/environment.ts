/** What programs and threads that we start are told of our environment. */

/** Variables that hold a token of the Hugging Face hub. */
const TOKENS = ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HUGGINGFACE_HUB_TOKEN'];

/**
 * A copy without the hub's tokens: nobody but the hub's client needs them. Everything else stays, such as the keys of
 * services that a reward asks.
 */
export function withoutTokens(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !TOKENS.includes(name)));
}
