"""Real exporters, unmodified, against a running server: the right session, the right tokens.

`make otel` installs what they need, apart from our own, and runs this. Each application runs as a
process of its own, calls a scripted provider by the real client, and exports over OTLP/HTTP; once
with its calls sent straight to the provider, and once through the proxy, where what both see counts
once.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.provider import CASES, Provider, provider
from tests.golden import Case
from tests.running import Running, running

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
HOME = Path(os.environ.get("TRACEWAY_OTEL") or ROOT / ".venv" / "otel")
PYTHON = HOME / "bin" / "python"
NODE = shutil.which("node")

PLAIN = CASES["chat, plain"]
STREAM = CASES["chat stream with usage"]
EMBEDDING = CASES["embeddings"]
RESPONSE = CASES["response, with cached input and reasoning"]
MADE = {
    "openinference": (PLAIN, STREAM, EMBEDDING, RESPONSE),
    "openai-v2": (PLAIN, STREAM, EMBEDDING),
    "openllmetry": (PLAIN, STREAM, EMBEDDING, RESPONSE),
    "vercel json": (PLAIN, STREAM, EMBEDDING),
    "vercel protobuf": (PLAIN, STREAM, EMBEDDING),
}
ENVIRONMENT = {
    # The newer names, with messages in spans, as its documentation has it.
    "openai-v2": {
        "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    }
}


@pytest.fixture
async def openai_like() -> Any:
    async with provider() as served:
        yield served


@pytest.fixture
async def tw(tmp_path: Path, openai_like: Provider) -> Any:
    async with running(tmp_path, openai_like.url) as served:
        yield served


async def run(
    which: str, tw: Running, api_url: str, environment: dict[str, str], *more: str
) -> None:
    """Run an application to its end."""
    name, _, encoding = which.partition(" ")
    if name == "vercel":
        if NODE is None:
            pytest.skip("no Node on PATH")
        command = [NODE, HOME / "node" / "vercel.mjs", encoding]
    else:
        command = [PYTHON, HERE / "client.py", which]
    await finished(environment, *command, f"{tw.url}/v1/traces", api_url, *more)


async def finished(environment: dict[str, str], *command: str | Path) -> None:
    """Run a program that is to succeed and to say nothing of errors."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**environ, **environment, "NO_PROXY": "127.0.0.1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    # An exporter says no more of what was refused.
    assert b"rror" not in output, output.decode()


async def sums(tw: Running) -> dict[str, Any]:
    (session,) = (await tw.api("/api/sessions"))["sessions"]
    return session  # type: ignore[no-any-return]


def tokens(cases: Iterable[Case]) -> tuple[int, int]:
    """Give what calls use."""
    told = [case.tokens for case in cases]
    return sum(one.input or 0 for one in told), sum(one.output or 0 for one in told)


@pytest.mark.parametrize("which", list(MADE))
async def test_it_lands_in_its_session_with_its_tokens(
    which: str, tw: Running, openai_like: Provider
) -> None:
    await run(which, tw, f"{openai_like.url}/v1", ENVIRONMENT.get(which, {}))
    session = await sums(tw)
    assert (session["id"], session["user_id"]) == ("chat/7", "ada")
    assert (session["input_tokens"], session["output_tokens"]) == tokens(MADE[which])
    assert session["cost"] == pytest.approx(sum(float(c.cost_usd or 0) for c in MADE[which]))
    assert (session["unpriced_count"], session["estimated_count"]) == (0, 0)
    assert session["status"] == "completed"
    spans = [span for span in await tw.spans() if span["kind"]["type"] != "custom"]
    expected = [case.model for case in MADE[which]]
    assert sorted(span["kind"]["model"] for span in spans) == sorted(map(str, expected))
    assert [span["kind"]["type"] for span in spans].count("embedding") == 1
    assert {span["kind"]["provider"] for span in spans} == {"openai"}
    assert all(trace["name"] == "turn" for trace in (await tw.api("/api/traces"))["traces"])


@pytest.mark.parametrize("which", list(MADE))
async def test_its_messages_are_a_conversation(
    which: str, tw: Running, openai_like: Provider
) -> None:
    await run(which, tw, f"{openai_like.url}/v1", ENVIRONMENT.get(which, {}))
    found = (await tw.api("/api/sessions/chat%2F7/conversation"))["messages"]
    said = [(message["role"], message["text"]) for message in found]
    for message in (
        ("system", "Be brief."),
        ("user", "Say hello."),
        ("assistant", PLAIN.text),
        ("user", "Hello?"),
        ("assistant", STREAM.text),
    ):
        assert message in said


async def test_the_older_names_of_the_openai_v2_instrumentation_count_as_well(
    tw: Running, openai_like: Provider
) -> None:
    await run("openai-v2", tw, f"{openai_like.url}/v1", {})
    session = await sums(tw)
    assert (session["input_tokens"], session["output_tokens"]) == tokens(MADE["openai-v2"])


@pytest.mark.parametrize("which", list(MADE))
async def test_calls_that_also_come_through_the_proxy_count_once(which: str, tw: Running) -> None:
    # An embedding has no id by which it could be known again.
    await run(which, tw, tw.openai_base, ENVIRONMENT.get(which, {}), "without-embeddings")
    made = [case for case in MADE[which] if case is not EMBEDDING]
    session = await sums(tw)
    assert session["id"] == "chat/7"
    assert (session["input_tokens"], session["output_tokens"]) == tokens(made)
    assert session["cost"] == pytest.approx(sum(float(case.cost_usd or 0) for case in made))
    spans = await tw.spans()
    assert len([span for span in spans if span["metadata"]["http_status"] == 200]) == len(made)
    traces = (await tw.api("/api/traces"))["traces"]
    assert sum(trace["input_tokens"] or 0 for trace in traces) == tokens(made)[0]


async def test_the_program_of_the_documentation_works(
    tw: Running, openai_like: Provider, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "opentelemetry.md").read_text()
    exports = re.findall(r"^export (\w+)=(.*)$", page, re.MULTILINE)
    environment = {
        name: value.strip('"').replace("http://127.0.0.1:3000", tw.url) for name, value in exports
    }
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in environment
    # Keys are off here; an exporter needs a header that it can read.
    environment["OTEL_EXPORTER_OTLP_TRACES_HEADERS"] = "x-team=a"
    (program,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    environment |= {"OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": f"{openai_like.url}/v1"}
    await finished(environment, PYTHON, tmp_path / "program.py")
    session = await sums(tw)
    assert session["id"] == "user_123:conv_456"
    assert (session["input_tokens"], session["output_tokens"]) == tokens([PLAIN])
