// What an application may write, and what its compiler must refuse. Compiled, never run.

import { Traceway, TracewayError } from 'traceway';
import type { Kind, SessionWithTraces, Span, SpanRow, Trace, TracewayEvent } from 'traceway';

const tw = new Traceway({ apiKey: 'tw_sk_...' });

const trace: Trace = tw.trace('chat-turn', {
  sessionId: 'sess_abc123',
});
const span: Span = trace.span('step', { kind: 'retrieval', input: { query: 'q' }, metadata: { a: 1 } });
span.setOutput([1]).setMetadata({ b: 2 }).set({ inputTokens: 1 }).end();

const length: Promise<number> = tw.trace('turn', async (ctx) => {
  const text: string = await ctx.span('step', () => 'text', { kind: { type: 'custom', kind: 'rerank', attributes: { k: 1 } } });
  const call: Span = ctx.llmCall('answer', { model: 'm', provider: 'p', inputTokens: 1 });
  call.fail(new Error('no'));
  return ctx.llmCall('count', async () => text.length, { model: 'm' });
});

const kinds: Kind[] = [
  { type: 'llm_call', model: 'm', temperature: 0.5 },
  { type: 'tool_call', tool: 'clock' },
  { type: 'fs_read', path: '/etc/hosts' },
];

export async function read(): Promise<string> {
  const session: SessionWithTraces = await tw.getSession('sess_abc123');
  const rows: SpanRow[] = (await tw.getSpans({ status: 'failed', since: new Date(), durationMin: 5, costMin: 0.1 })).spans;
  const status = rows[0]?.status;
  if (typeof status === 'object') return status.failed?.error ?? 'none';
  for await (const event of tw.subscribe({ kinds: ['span_failed'] })) told(event);
  try {
    await tw.failSpan(span.id, new Error('no'));
  } catch (error) {
    if (error instanceof TracewayError) return `${error.status} ${error.code} ${error.retryable}`;
  }
  return `${session.traces[0]?.cost} ${await length} ${kinds.length} ${tw.dropped}`;
}

function told(event: TracewayEvent): string | null {
  if (event.type === 'span_progress') return event.text;
  if (event.type === 'session_updated') return event.session?.last_output ?? null;
  return event.type === 'span_failed' ? event.span_id : null;
}

const subscription = tw.subscribe(told, { progress: true, signal: new AbortController().signal });
subscription.close();

// @ts-expect-error: a session id is text.
tw.trace('turn', { sessionId: 5 });
// @ts-expect-error: no such kind.
trace.span('step', { kind: 'thinking' });
// @ts-expect-error: tokens are numbers.
trace.llmCall('call', { inputTokens: '5' });
// @ts-expect-error: no such order.
tw.getSessions({ sortBy: 'colour' });
// @ts-expect-error: what is a callback's result stays what it is.
const wrong: Promise<string> = tw.trace('turn', () => 5);
void wrong;
