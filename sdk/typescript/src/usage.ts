/**
 * What a model call was, read out of what the provider's client gave back.
 *
 * Invariant: token counts are totals as billed, as everywhere in Traceway; what is not told stays
 * unknown. Pure.
 */

import type { LlmCall } from './kinds.js';

type Json = Record<string, unknown>;

/** Read model, tokens and id of an answer in the shape of OpenAI's or Anthropic's; else nothing. */
export function readAnswer(answer: unknown): LlmCall {
  if (!isObject(answer) || !isObject(answer['usage'])) return {};
  const usage = answer['usage'];
  const details = (name: string): Json => (isObject(usage[name]) ? (usage[name] as Json) : {});
  // Anthropic counts what is read from and written to its cache beside `input_tokens`.
  const cacheRead = count(usage['cache_read_input_tokens']);
  const cacheWrite = count(usage['cache_creation_input_tokens']);
  const input = count(usage['prompt_tokens']) ?? count(usage['input_tokens']);
  return known({
    model: textOf(answer['model']),
    responseId: textOf(answer['id']),
    inputTokens: input === undefined ? undefined : input + (cacheRead ?? 0) + (cacheWrite ?? 0),
    outputTokens: count(usage['completion_tokens']) ?? count(usage['output_tokens']),
    cachedInputTokens:
      cacheRead ??
      count(details('prompt_tokens_details')['cached_tokens']) ??
      count(details('input_tokens_details')['cached_tokens']),
    cacheWriteTokens: cacheWrite,
    reasoningTokens:
      count(details('completion_tokens_details')['reasoning_tokens']) ??
      count(details('output_tokens_details')['reasoning_tokens']),
  });
}

function known(fields: { [K in keyof LlmCall]: LlmCall[K] | undefined }): LlmCall {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null;
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function count(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 ? value : undefined;
}
