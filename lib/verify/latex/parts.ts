/** Answers to the parts of a question: `(a) 3 (b) 4`. */

const LABEL = /(?<![a-zA-Z0-9\\(^_])(?:part\s*)?(\()?([a-h]|i{1,3}|iv|vi{0,3}|[1-9])\)\s?[:.=]?(?=\s|\$|\\|-|\d|$)/gi;
const SEQUENCES = ['a b c d e f g h', 'i ii iii iv v vi vii viii', '1 2 3 4 5 6 7 8 9'].map((names) =>
  names.split(' '),
);
const OPERATOR_ENDS = /^[+*/^=<>_]|[-+*/^=<>_(]$/;

/** The parts of a cleaned answer as one tuple, because their order is that of their labels; null where it has no labels. */
export function joinedParts(cleaned: string): string | null {
  if (!cleaned.includes(')')) return null;
  // `\text{(a) }3`.
  const text = cleaned
    .replace(/\\(?:text|textbf|mathrm)\s*\{\s*((?:part\s*)?\(?[a-z0-9]{1,4}\)\s?:?)\s*\}/gi, ' $1 ')
    .trim();
  const labels = [...text.matchAll(LABEL)];
  if (labels.length < 2 || labels[0]?.index !== 0) return null;
  const names = labels.map((label) => (label[2] as string).toLowerCase());
  if (!SEQUENCES.some((sequence) => names.every((name, k) => name === sequence[k]))) return null;
  const parts = labels.map((label, k) =>
    text.slice(label.index + label[0].length, labels[k + 1]?.index).replace(/^[\s:]+|(?:[\s,;.]|(?<![a-z])and)+$/g, ''),
  );
  return parts.some((part) => part === '' || OPERATOR_ENDS.test(part))
    ? null
    : `(${parts.map((part) => `{${part}}`).join(';')})`;
}
