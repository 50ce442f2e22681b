/** What a span is, as an application says it, and as the server takes it. */

/** The types of kinds that the server knows. */
export type KindType =
  | 'llm_call'
  | 'custom'
  | 'tool_call'
  | 'retrieval'
  | 'embedding'
  | 'fs_read'
  | 'fs_write';

/** What is known of a call of a model. Token counts are totals as billed; unknown ones are left out. */
export interface LlmCall {
  model?: string;
  provider?: string;
  inputTokens?: number;
  outputTokens?: number;
  /** Of the input: read from the provider's cache. */
  cachedInputTokens?: number;
  /** Of the input: written to the provider's cache. */
  cacheWriteTokens?: number;
  /** Of the output: reasoning. */
  reasoningTokens?: number;
  /** USD; without it the server looks the price up. */
  cost?: number;
  /** The id that the provider gave its answer. */
  responseId?: string;
}

/** A kind; fields that its type does not know are kept as its attributes. */
export type Kind =
  | ({ type: 'llm_call' | 'embedding' } & LlmCall & { [field: string]: unknown })
  | { type: 'custom'; kind?: string; attributes?: Record<string, unknown> }
  | { type: 'tool_call' | 'retrieval' | 'fs_read' | 'fs_write'; [field: string]: unknown };

// The server refuses a span whose tokens are no number: what cannot be is left out, and unknown.
const NUMBERS: Record<string, string> = {
  inputTokens: 'input_tokens',
  outputTokens: 'output_tokens',
  cachedInputTokens: 'cached_input_tokens',
  cacheWriteTokens: 'cache_write_tokens',
  reasoningTokens: 'reasoning_tokens',
  cost: 'cost',
};
const WORDS: Record<string, string> = { model: 'model', provider: 'provider', responseId: 'response_id' };
const MAX_WORD_CHARACTERS = 512;

/** Give a kind's fields with the names of the API; a bare string is a type. */
export function wireKind(kind: Kind | KindType | LlmCall | undefined): Record<string, unknown> {
  if (typeof kind === 'string') return { type: kind };
  const given: Record<string, unknown> = { ...kind };
  const type = given['type'];
  const isCall = type === undefined || type === 'llm_call' || type === 'embedding';
  const fields: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    const wire = NUMBERS[name] ?? WORDS[name] ?? name;
    if (!isCall) fields[wire] = value;
    else if (isOf(NUMBERS, wire)) {
      if (typeof value === 'number' && value >= 0 && value < Infinity) fields[wire] = value;
    } else if (isOf(WORDS, wire)) {
      if (typeof value === 'string') fields[wire] = value.slice(0, MAX_WORD_CHARACTERS);
    } else fields[wire] = value;
  }
  return fields;
}

function isOf(names: Record<string, string>, wire: string): boolean {
  return Object.values(names).includes(wire);
}
