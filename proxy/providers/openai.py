"""The OpenAI dialect, also spoken by Azure and by most gateways: this file is its door.

``operation_of`` says what a call is; ``read_request`` and ``read_answer`` read whole bodies;
``StreamWatch`` follows a stream on the event loop; ``stream_text`` puts its text together
afterwards. None of them raises on any input.
"""

from proxy.providers.answer import read_answer
from proxy.providers.operations import operation_of
from proxy.providers.output import stream_text
from proxy.providers.request import read_request
from proxy.providers.stream import StreamWatch

__all__ = ["StreamWatch", "operation_of", "read_answer", "read_request", "stream_text"]
