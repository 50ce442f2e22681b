"""An application of somebody else: the real `openai` client, instrumented, and a real exporter.

It runs in the virtualenv of requirements.lock.txt and knows nothing of Traceway but two addresses.
Usage: client.py INSTRUMENTATION TRACES_URL API_URL [without-embeddings]
"""

import sys

import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say hello."},
]
# What names the conversation, as each library's users do it.
SESSION = {
    "openinference": "session.id",
    "openai-v2": "gen_ai.conversation.id",
    "openllmetry": "session.id",
}


def main(instrumentation: str, traces_url: str, api_url: str, without: str = "") -> None:
    """Make one call of each kind in one trace, and export it."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    exporter = OTLPSpanExporter(endpoint=traces_url, compression=Compression.Gzip)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    if instrumentation == "openinference":
        from openinference.instrumentation.openai import OpenAIInstrumentor
    elif instrumentation == "openai-v2":
        from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
    else:
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    client = openai.OpenAI(base_url=api_url, api_key="sk-none", max_retries=0)
    attributes = {SESSION[instrumentation]: "chat/7", "user.id": "ada"}
    with trace.get_tracer("shop").start_as_current_span("turn", attributes=attributes):
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        with client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Hello?"}],
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            for _ in stream:
                pass
        if not without:
            client.embeddings.create(model="text-embedding-3-small", input=["a cat", "a dog"])
        if instrumentation != "openai-v2":  # 2.4b0 does not know responses
            client.responses.create(model="gpt-5-mini", input="Tell me", instructions="Be brief.")
    provider.shutdown()


main(*sys.argv[1:])
