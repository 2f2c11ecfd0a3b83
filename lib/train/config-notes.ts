/** What is allowed in a configuration, and yet hardly meant. */

/** AdamW's first steps move every weight by about the learning rate; the weights of language models are of this size. */
const SIZE_OF_WEIGHTS = 0.01;

/** Sentences for the user, to be said before training. */
export function configNotes({ optimizer: { lr } }: { optimizer: { lr: number } }): string[] {
  if (lr <= SIZE_OF_WEIGHTS) return [];
  return [
    `optimizer.lr = ${lr} is very large: AdamW moves every weight by about so much in each step, and the weights of a ` +
      'language model are hardly larger; expect a broken model (the paper has 5e-7)',
  ];
}
