"""The OpenAI dialect, also spoken by Azure and by most gateways: this file is its door.

``operation_of`` says what a call is; ``read_request`` and ``read_answer`` read whole bodies.
``weigh`` says what a request may come to before it is answered.
``StreamWatch`` follows a stream on the event loop, where ``text_delta`` says what text an event
adds; afterwards ``assemble`` puts its answer together, and ``stream_text`` the text of one that is
of no conversation. ``messages_key`` and ``answer_path`` say where the messages of a conversation
stand, ``read_message`` what one of them says. None of them raises on any input.
"""

from proxy.providers.answer import read_answer
from proxy.providers.assemble import Assembled, assemble, stream_text
from proxy.providers.delta import text_delta
from proxy.providers.messages import (
    TEXT_VERSION,
    MessageFacts,
    answer_path,
    messages_key,
    read_message,
    text_of,
)
from proxy.providers.operations import operation_of
from proxy.providers.request import input_preview, input_text, read_request
from proxy.providers.stream import StreamWatch
from proxy.providers.weight import weigh

__all__ = [
    "TEXT_VERSION",
    "Assembled",
    "MessageFacts",
    "StreamWatch",
    "answer_path",
    "assemble",
    "input_preview",
    "input_text",
    "messages_key",
    "operation_of",
    "read_answer",
    "read_message",
    "read_request",
    "stream_text",
    "text_delta",
    "text_of",
    "weigh",
]
