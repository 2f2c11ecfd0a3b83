/** What a template may still compute. Rendering is synchronous, so there is one budget at a time. */

/** A template went beyond what it may compute. */
export class TemplateLimit extends Error {}

/** A chat of a thousand messages takes about 1e5 steps; all of them take a few seconds. */
const MAX_STEPS = 2_000_000;
export const MAX_TEXT = 4 * 1024 * 1024;
export const MAX_ITEMS = 100_000;

let steps = 0;

/** Runs `work` with a fresh budget. */
export function withBudget<T>(work: () => T): T {
  const outer = steps;
  steps = 0;
  try {
    return work();
  } finally {
    steps = outer;
  }
}

/** @throws TemplateLimit where the budget is used up */
export function charge(count: number): void {
  steps += count;
  if (steps > MAX_STEPS) throw new TemplateLimit(`it takes more than ${MAX_STEPS} steps`);
}

/** Charges for a value that was made or looked at: a step per 256 characters, a step per 4 items. */
export function chargeValue(content: unknown): void {
  if (typeof content === 'string') {
    if (content.length > MAX_TEXT) throw new TemplateLimit(`it makes a text of ${content.length} characters`);
    charge(1 + content.length / 256);
    return;
  }
  const size = Array.isArray(content) ? content.length : content instanceof Map ? content.size : 0;
  if (size > MAX_ITEMS) throw new TemplateLimit(`it makes a list of ${size} items`);
  charge(1 + size / 4);
}
