/** What a span is, as an application says it, and as the server takes it. Pure. */

import { given } from './given.js';
import { toJson } from './json.js';

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

const TYPES = new Set<unknown>(['llm_call', 'custom', 'tool_call', 'retrieval', 'embedding', 'fs_read', 'fs_write']);
// The server takes 256 KiB of attributes and metadata together; a character is three bytes at most.
const MAX_CHARACTERS = 40_000;

/** Give a kind's fields with the names of the API; a bare string is a type. */
export function wireKind(kind: Kind | KindType | LlmCall | undefined): Record<string, unknown> {
  if (typeof kind === 'string') return wireKind({ type: kind });
  const { type, ...rest }: Record<string, unknown> = given(kind);
  if (type !== undefined && !TYPES.has(type)) return { type: 'custom', kind: String(type), attributes: rest };
  const fields = type === 'custom' ? labelled(rest) : fieldsOf(type, rest);
  const { attributes } = fields;
  const isObject = typeof attributes === 'object' && attributes !== null && !Array.isArray(attributes);
  return {
    ...(type === undefined ? {} : { type }),
    ...fields,
    ...(attributes === undefined || isObject ? {} : { attributes: { attributes } }),
  };
}

/** Write a kind as JSON; what is too large is left out of it, never what it is. */
export function kindJson(kind: Record<string, unknown>): string {
  const text = toJson(kind, MAX_CHARACTERS);
  if (!text.startsWith('{"truncated"')) return text;
  const known = Object.entries(kind).filter(([name]) => name === 'type' || name === 'kind' || isKnown(name));
  return toJson({ ...Object.fromEntries(known), attributes: { truncated: true, characters: toJson(kind).length } });
}

/** Write metadata as JSON. */
export function metadataJson(metadata: Record<string, unknown>): string {
  return toJson(metadata, MAX_CHARACTERS);
}

function labelled({ kind, ...rest }: Record<string, unknown>): Record<string, unknown> {
  return typeof kind === 'string' ? { ...rest, kind: kind.slice(0, MAX_WORD_CHARACTERS) } : rest;
}

function fieldsOf(type: unknown, said: Record<string, unknown>): Record<string, unknown> {
  const isCall = type === undefined || type === 'llm_call' || type === 'embedding';
  const fields: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(said)) {
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

function isKnown(wire: string): boolean {
  return isOf(NUMBERS, wire) || isOf(WORDS, wire);
}

function isOf(names: Record<string, string>, wire: string): boolean {
  return Object.values(names).includes(wire);
}
