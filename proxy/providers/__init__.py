"""Wire dialects: what the bytes of a proxied call mean.

Bytes in, values out: nothing here does I/O, takes a clock or raises, whatever it is given. There
is one dialect so far, that of OpenAI (``openai``); the values that every dialect gives are in
``facts``.
"""

from proxy.providers.facts import AnswerFacts, Bill, Operation, RequestFacts
from proxy.providers.openai import (
    StreamWatch,
    operation_of,
    read_answer,
    read_request,
    stream_text,
)

__all__ = [
    "AnswerFacts",
    "Bill",
    "Operation",
    "RequestFacts",
    "StreamWatch",
    "operation_of",
    "read_answer",
    "read_request",
    "stream_text",
]
