/** What the policy is given: a row's text in a template, as plain text or as a chat. */
import { InvalidArgumentError } from '../../errors.js';
import type { OptionKeys } from '../../options.js';
import type { ChatMessage } from '../types.js';

/**
 * How a text becomes a prompt.
 *
 * - `plain`: the text itself.
 * - `chat`: one user message, which the tokenizer's chat template renders.
 * - `qwen-boxed`: a chat that asks for steps and a boxed answer in the user's message, under a general system prompt.
 *   What SimpleRL-Zoo trains Qwen2.5 with, whose recipe the paper follows.
 * - `qwen-math`: a chat that asks for them in the system prompt, as Qwen2.5-Math's model card does.
 * - `simplerl`: plain text for base models that follow no chat (SimpleRL-Zoo's simple prompt).
 */
export type PromptStyle = (typeof PROMPT_STYLES)[number];

export const PROMPT_STYLES = ['plain', 'chat', 'qwen-boxed', 'qwen-math', 'simplerl'] as const;

interface Style {
  chat: boolean;
  template: string;
  system: string | null;
}

const BOXED = 'Please reason step by step, and put your final answer within \\boxed{}.';

const STYLES: Readonly<Record<PromptStyle, Style>> = {
  plain: { chat: false, template: '{prompt}', system: null },
  chat: { chat: true, template: '{prompt}', system: null },
  'qwen-boxed': { chat: true, template: `{prompt}\n${BOXED}`, system: 'You are a helpful assistant.' },
  'qwen-math': { chat: true, template: '{prompt}', system: BOXED },
  simplerl: { chat: false, template: "Question:\n{prompt}\nAnswer:\nLet's think step by step.\n", system: null },
};

export interface PromptOptions {
  /** Default 'plain'. */
  promptStyle?: PromptStyle;
  /** Text or user message; `{prompt}` stands for the row's text. Default: the style's. */
  template?: string;
  /** System message of a chat; '' = none. Default: the style's. */
  system?: string;
}

export const PROMPT_KEYS: OptionKeys<PromptOptions> = { promptStyle: true, template: true, system: true };

/** A row's text as a prompt. */
export type PromptMaker = (text: string) => string | ChatMessage[];

/** @throws InvalidArgumentError naming the option */
export function promptMaker({ promptStyle = 'plain', template, system }: PromptOptions): PromptMaker {
  const style = Object.hasOwn(STYLES, promptStyle) ? STYLES[promptStyle] : undefined;
  if (style === undefined) {
    throw new InvalidArgumentError(
      `promptStyle must be one of ${PROMPT_STYLES.map((name) => `'${name}'`).join(', ')}, got ${JSON.stringify(promptStyle)}`,
    );
  }
  if (template !== undefined && !template.includes('{prompt}')) {
    throw new InvalidArgumentError(`template must contain {prompt}, got ${JSON.stringify(template)}`);
  }
  if (system !== undefined && system !== '' && !style.chat) {
    throw new InvalidArgumentError(
      `system: promptStyle '${promptStyle}' is plain text without a system message; use 'chat'`,
    );
  }
  const form = template ?? style.template;
  const fill = (text: string): string => form.replaceAll('{prompt}', () => text);
  if (!style.chat) return fill;
  const rules = system ?? style.system;
  const before: ChatMessage[] = rules === null || rules === '' ? [] : [{ role: 'system', content: rules }];
  return (text) => [...before, { role: 'user', content: fill(text) }];
}

/** Whether a value is a chat: a list of { role, content } of text, not empty. */
export function isChat(value: unknown): value is ChatMessage[] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((m) => ['system', 'user', 'assistant'].includes(m?.role) && typeof m?.content === 'string')
  );
}
