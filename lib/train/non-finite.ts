/** Numbers that are not finite: found where they appear first, and said in words. */
import type { ObjectiveResult, TokenBatch } from '../algorithm/types.js';
import type { NonFinite, PolicyLike } from '../policy.js';
import { type LossSample, sequenceBatch } from './batching.js';

/** Something went wrong and the run went on: an update that was skipped, unlearning undone, rewards left out. */
export interface Incident {
  kind: 'update' | 'unlearn' | 'reward';
  /** What happened, where and why. */
  message: string;
}

/** Index of the first number that is not finite, or -1. */
export function firstNonFinite(values: ArrayLike<number>): number {
  for (let i = 0; i < values.length; i += 1) if (!Number.isFinite(values[i])) return i;
  return -1;
}

const tokenOf = (sample: LossSample, t: number): string =>
  `token ${t} of ${sample.label} (position ${sample.prompt.length + t})`;

/** What a sample brings into the loss, in the order in which it was computed; null where all of it is finite. */
export function badInput(sample: LossSample): string | null {
  const { behaviorLogprob, policyLogprob, refLogprob, advantage } = sample;
  const at = firstNonFinite(behaviorLogprob);
  if (at >= 0) return `the recorded log-prob of ${tokenOf(sample, at)} is ${behaviorLogprob[at]}`;
  // What the loss gets is a float32.
  if (!Number.isFinite(Math.fround(advantage))) return `the advantage of ${sample.label} is ${advantage}`;
  const rest = [
    ['theta before the update', policyLogprob],
    ['the reference model', refLogprob],
  ] as const;
  for (const [whose, values] of rest) {
    const t = values === null ? -1 : firstNonFinite(values);
    if (t >= 0) return `the log-prob under ${whose} of ${tokenOf(sample, t)} is ${values?.[t]}`;
  }
  return null;
}

/** A per-token array of a micro-batch: `the <name> of token 3 of sample 1 of prompt x is NaN`, or null. */
export function badToken(name: string, values: Float32Array, part: readonly LossSample[]): string | null {
  let at = firstNonFinite(values);
  if (at < 0) return null;
  const value = values[at];
  for (const sample of part) {
    if (at < sample.response.length) return `${name} of ${tokenOf(sample, at)} is ${value}`;
    at -= sample.response.length;
  }
  return `${name} has ${value} behind its last token`;
}

/** What the objective made of finite numbers: its coefficients, then its loss. */
export function badObjective({ a, b, loss }: ObjectiveResult, part: readonly LossSample[]): string | null {
  const coefficient =
    badToken('the loss coefficient a = dL/dlogprob', a, part) ??
    badToken('the loss coefficient b = dL/dentropy', b, part);
  if (coefficient !== null) return coefficient;
  return Number.isFinite(loss) ? null : `the loss is ${loss}`;
}

/** A forward whose statistics are not finite: which weight, hidden state or logits it began with. */
export async function badForward(
  policy: Pick<PolicyLike, 'findNonFinite'>,
  part: readonly LossSample[],
  { logprob, entropy }: Pick<TokenBatch, 'logprob' | 'entropy'>,
  temperature: number,
): Promise<string | null> {
  const seen = badToken('the log-prob', logprob, part) ?? badToken('the entropy', entropy, part);
  if (seen === null) return null;
  // The search itself may fail, of memory for instance: then what was seen has to do.
  const found = await policy.findNonFinite?.(sequenceBatch(part), { temperature }).catch(() => null);
  return found ? describeNonFinite(found, part) : seen;
}

/** A find in words, with the name of its sample. */
export function describeNonFinite(found: NonFinite, part: readonly LossSample[] = []): string {
  if (found.kind === 'weight') return `the weight ${found.text}`;
  if (found.kind === 'gradient' || found.kind === 'moment') return `the ${found.kind} of ${found.text}`;
  const sample = found.sequence === null ? undefined : part[found.sequence];
  if (sample === undefined) return found.text;
  return `${found.text} (${sample.label})`;
}
