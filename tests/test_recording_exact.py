"""Requests as clients send them come back from the database byte for byte."""

import asyncio
import hashlib

from proxy.call import CallEnd
from storage.rebuild import request_body
from storage.records import DEFAULT_PROJECT
from tests.calling import ANSWER, a_call, answered
from tests.recorders import Begin
from tests.shaped import requests

TARGETS = {
    "messages": b"/api/proxy/openai/v1/chat/completions",
    "input": b"/api/proxy/openai/v1/responses",
}


def sent(number: int, key: str, body: bytes) -> CallEnd:
    call = a_call(target=TARGETS[key], request=body, session=f"s{number % 7}")
    return answered(call, ANSWER)


async def test_2000_requests_come_back_as_they_were(begin: Begin) -> None:
    recording = await begin()
    bodies = list(requests(2000, seed=11))
    ends = [sent(number, key, body) for number, (key, body) in enumerate(bodies)]
    await asyncio.gather(*[recording.recorder.put(end) for end in ends])
    assert recording.recorder.losses.counters.unreadable_records == 0
    for end, (_, body) in zip(ends, bodies, strict=True):
        request = await request_body(recording.database, DEFAULT_PROJECT, end.start.span_id)
        assert request is not None
        assert (request.data, request.truncated) == (body, False)
        assert request.sha256 == hashlib.sha256(body).digest()
    ((envelopes,),) = await recording.rows(
        "SELECT COUNT(*) FROM spans WHERE request_envelope IS NOT NULL"
    )
    assert envelopes > 1900
