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

const WIRE: Record<string, string> = {
  inputTokens: 'input_tokens',
  outputTokens: 'output_tokens',
  cachedInputTokens: 'cached_input_tokens',
  cacheWriteTokens: 'cache_write_tokens',
  reasoningTokens: 'reasoning_tokens',
  responseId: 'response_id',
};

/** Give a kind's fields with the names of the API; a bare string is a type. */
export function wireKind(kind: Kind | KindType | LlmCall | undefined): Record<string, unknown> {
  if (typeof kind === 'string') return { type: kind };
  const fields: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(kind ?? {})) {
    if (value !== undefined) fields[WIRE[name] ?? name] = value;
  }
  return fields;
}
