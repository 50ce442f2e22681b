// An application of somebody else: the Vercel AI SDK with its telemetry on, and a real exporter.
// Usage: node vercel.mjs ENCODING TRACES_URL API_URL [without-embeddings]
import { createOpenAI } from '@ai-sdk/openai';
import { OTLPTraceExporter as JsonExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as ProtoExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node';
import { embed, generateText, streamText } from 'ai';

const [encoding, url, baseURL, without] = process.argv.slice(2);
const exporter = new (encoding === 'json' ? JsonExporter : ProtoExporter)({ url, compression: 'gzip' });
const provider = new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(exporter)] });
provider.register();

const openai = createOpenAI({ baseURL, apiKey: 'sk-none' });
const experimental_telemetry = {
  isEnabled: true,
  functionId: 'turn',
  metadata: { sessionId: 'chat/7', userId: 'ada' },
};
const model = openai.chat('gpt-4o-mini');

await generateText({ model, system: 'Be brief.', prompt: 'Say hello.', experimental_telemetry });
for await (const _ of streamText({ model, prompt: 'Hello?', experimental_telemetry }).textStream);
if (!without) {
  await embed({
    model: openai.embedding('text-embedding-3-small'),
    value: 'a cat',
    experimental_telemetry,
  });
}
await provider.shutdown();
