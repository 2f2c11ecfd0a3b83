/** What a template may still compute. Rendering is synchronous, so there is one budget at a time. */

/** A template went beyond what it may compute. */
export class TemplateLimit extends Error {}

/** A chat of a thousand messages takes about 1e5 steps; all of them take a few seconds. */
const MAX_STEPS = 2_000_000;
export const MAX_TEXT = 4 * 1024 * 1024;
export const MAX_ITEMS = 100_000;

/** Whatever a step costs: a template that still computes after so many milliseconds is given up. */
const MAX_MILLISECONDS = 5_000;
/** Looking at the clock costs as much as a step. */
const STEPS_PER_LOOK = 1024;

let steps = 0;
let nextLook = 0;
let deadline = Number.POSITIVE_INFINITY;

/** Runs `work` with a fresh budget. */
export function withBudget<T>(work: () => T): T {
  const outer = [steps, nextLook, deadline] as const;
  [steps, nextLook, deadline] = [0, 0, performance.now() + MAX_MILLISECONDS];
  try {
    return work();
  } finally {
    [steps, nextLook, deadline] = outer;
  }
}

/** @throws TemplateLimit where the budget is used up */
export function charge(count: number): void {
  steps += count;
  if (steps > MAX_STEPS) throw new TemplateLimit(`it takes more than ${MAX_STEPS} steps`);
  if (steps < nextLook) return;
  nextLook = steps + STEPS_PER_LOOK;
  if (performance.now() > deadline) throw new TemplateLimit(`it takes more than ${MAX_MILLISECONDS / 1000} s`);
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

/** Charges for a text that is about to be made, by its length. */
export function chargeLength(length: number): void {
  if (length > MAX_TEXT) throw new TemplateLimit(`it makes a text of ${length} characters`);
  charge(1 + length / 256);
}
