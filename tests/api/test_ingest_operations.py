"""The write API does what its description says: its own examples, and what its schemas allow."""

import re
import shlex
from pathlib import Path

import orjson
import pytest

from proxy.api.ingest_operations import OPERATIONS
from proxy.api.reference import ROOT
from proxy.api.schemas import example_of
from tests.api.described import validator
from tests.api.handing import AT, SPAN, TRACE, batch, hand_in
from tests.running import Running

BODIES: list[tuple[str, object]] = [
    ("NewTrace", {}),
    ("NewTrace", {"id": TRACE}),
    ("NewTrace", {"id": TRACE.upper()}),
    ("NewTrace", {"id": "x"}),
    ("NewTrace", {"id": None, "name": None, "tags": None}),
    ("NewTrace", {"tags": ["x" * 64] * 64}),
    ("NewTrace", {"tags": ["x" * 65]}),
    ("NewTrace", {"tags": ["x"] * 65}),
    ("NewTrace", {"started_at": AT}),
    ("NewTrace", {"more": 1}),
    ("NewTrace", []),
    ("NewSpan", {"id": SPAN, "trace_id": TRACE, "parent_id": SPAN}),
    ("NewSpan", {"id": TRACE}),
    ("NewSpan", {"kind": "llm_call"}),
    ("NewSpan", {"kind": {"type": "llm_call", "input_tokens": 12, "cost": 0.1, "more": [1]}}),
    ("NewSpan", {"kind": {"type": "llm_call", "input_tokens": -1}}),
    ("NewSpan", {"kind": {"type": "embedding", "cost": 10_001}}),
    ("NewSpan", {"kind": {"type": "spam"}}),
    ("NewSpan", {"kind": 5}),
    ("NewSpan", {"input": [1, None], "output": None, "metadata": {"a": []}}),
    ("NewSpan", {"metadata": 5}),
    ("NewSpan", {"status": "failed", "error": "x"}),
    ("NewSpan", {"status": "truncated"}),
    ("NewSpan", {"duration_ms": 12.5}),
    ("NewSpan", {"duration_ms": -1}),
    ("NewSpan", {"user_id": "x" * 513}),
    ("SpanCompletion", {"output": 5}),
    ("SpanCompletion", {"error": "x"}),
    ("SpanFailure", {"error": "x"}),
    ("SpanFailure", {}),
    ("TraceEnd", {"ended_at": AT}),
    ("TraceEnd", {"name": "x"}),
]
PATHS = {
    "NewTrace": "/api/traces",
    "NewSpan": "/api/spans",
    "SpanCompletion": f"/api/spans/{SPAN}/complete",
    "SpanFailure": f"/api/spans/{SPAN}/fail",
    "TraceEnd": f"/api/traces/{TRACE}/end",
}


@pytest.mark.parametrize(("name", "body"), BODIES)
async def test_a_body_is_taken_if_it_is_as_described(tw: Running, name: str, body: object) -> None:
    schema = {"$ref": f"#/components/schemas/{name}"}
    fits = not list(validator(schema).iter_errors(body))
    reply = await hand_in(tw, PATHS[name], body)
    assert (reply.status < 300) == fits, reply.body


async def test_the_examples_of_the_description_can_be_sent_one_after_the_other(tw: Running) -> None:
    statuses = {}
    for operation in OPERATIONS:
        path = operation.path
        for one in operation.parameters:
            path = path.replace(f"{{{one.name}}}", str(one.example))
        reply = await hand_in(tw, path, example_of(operation.body))
        statuses[operation.id] = reply.status
    assert statuses == {
        "openTrace": 201,
        "endTrace": 200,
        "startSpan": 201,
        "completeSpan": 409,  # the example of a span has ended already
        "failSpan": 409,
        "handInBatch": 200,
        "exportTraces": 200,
    }


async def test_every_answer_of_a_batch_is_described(tw: Running) -> None:
    results = await batch(
        tw,
        {"type": "complete", "id": SPAN},
        {"type": "span", "id": SPAN, "trace_id": TRACE},
        {"type": "fail", "id": SPAN, "error": "x"},
        {"type": "span", "id": SPAN, "trace_id": "1" * 32},
        {"type": "span", "id": "x"},
    )
    assert [one["status"] for one in results] == [202, 201, 409, 409, 400]
    assert [one.get("error", {}).get("code") for one in results] == [
        None,
        None,
        "already_ended",
        "conflict",
        "bad_parameter",
    ]


def examples() -> list[tuple[str, bytes, object]]:
    """Give what docs/ingest.md shows: each request's path and body, and the answer to it."""
    text = (Path(__file__).parents[2] / "docs/ingest.md").read_text()
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for command, answer in re.findall(
            r"^\$ (curl .*?)\n(\{.*?)(?=\n\$|\n\n|\Z)", block, re.S | re.M
        ):
            words = shlex.split(command)
            (address,) = [word for word in words if word.startswith(ROOT)]
            body = words[words.index("-d") + 1].encode() if "-d" in words else b""
            found.append((address.removeprefix(ROOT), body, orjson.loads(answer)))
    return found


async def test_the_examples_of_the_page_are_answered_as_it_says(tw: Running) -> None:
    assert len(examples()) == 6
    for path, body, answer in examples():
        assert (await hand_in(tw, path, body)).body == answer
