/** Gold answers, as data sets write them. */

/** A gold answer, or several that are all accepted. */
export type Answer = string | number | (string | number)[];

/** Whether a column holds an answer. */
export function isAnswer(value: unknown): value is Answer {
  if (Array.isArray(value)) return value.length > 0 && value.every((entry) => !Array.isArray(entry) && isAnswer(entry));
  return typeof value === 'number' ? Number.isFinite(value) : typeof value === 'string';
}

/** An empty text cannot be matched: published sets have a few such rows. */
export function isBlank(answer: Answer): boolean {
  return Array.isArray(answer) ? answer.every(isBlank) : typeof answer === 'string' && answer.trim() === '';
}

/** Every accepted answer as text. */
export function acceptedAnswers(answer: Answer): string[] {
  return (Array.isArray(answer) ? answer : [answer]).map(String);
}

/** What follows the last `####` of a solution as GSM8K writes it, or null. */
export function afterHashes(solution: string): string | null {
  const at = solution.lastIndexOf('####');
  return at < 0 ? null : solution.slice(at + 4).trim();
}
