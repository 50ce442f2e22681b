"""Which operation of the OpenAI API a method and a path ask for, and how it is billed.

Invariant: only a POST that makes something is billed; GET, DELETE and cancel never are, though
many repeat the usage of what an earlier POST made. The table matches the end of the path, since
gateways put their own prefixes before it (``/openai/deployments/NAME/...``, ``/api/v1/...``), and
what it does not know is forwarded all the same.

Source: paths of openai-python 3.54.0 (November 2026).
"""

from typing import Final

from proxy.providers.facts import Operation

_UNKNOWN: Final = Operation("", "nothing")

# `*` stands for one segment. A longer pattern wins over a shorter one, a name over a `*`.
_TABLE: Final = {
    "POST chat/completions": Operation("chat.completions", "tokens"),
    "POST completions": Operation("completions", "tokens"),
    "POST responses": Operation("responses", "tokens"),
    "POST responses/compact": Operation("responses.compact", "tokens"),
    "POST responses/input_tokens": Operation("responses.input_tokens", "nothing"),
    "POST responses/*/cancel": Operation("responses.cancel", "nothing", settles=True),
    "GET responses/*": Operation("responses.retrieve", "nothing", settles=True),
    "POST embeddings": Operation("embeddings", "tokens"),
    "POST images/generations": Operation("images.generations", "tokens"),
    "POST images/edits": Operation("images.edits", "tokens"),
    "POST images/variations": Operation("images.variations", "other"),
    "POST audio/transcriptions": Operation("audio.transcriptions", "tokens"),
    "POST audio/translations": Operation("audio.translations", "tokens"),
    "POST audio/speech": Operation("audio.speech", "tokens"),
    "POST decisions": Operation("decisions", "tokens"),
    "POST moderations": Operation("moderations", "nothing"),
    "POST batches": Operation("batches", "tokens"),
    "POST batches/*/cancel": Operation("batches.cancel", "nothing", settles=True),
    "GET batches/*": Operation("batches.retrieve", "nothing", settles=True),
    "POST threads/runs": Operation("threads.runs", "tokens"),
    "POST threads/*/runs": Operation("threads.runs", "tokens"),
    # The run goes on in this call, but its usage is that of the whole run.
    "POST threads/*/runs/*/submit_tool_outputs": Operation(
        "threads.runs.submit_tool_outputs", "nothing", settles=True
    ),
    "POST threads/*/runs/*/cancel": Operation("threads.runs.cancel", "nothing", settles=True),
    "GET threads/*/runs/*": Operation("threads.runs.retrieve", "nothing", settles=True),
    "POST videos": Operation("videos", "other"),
    "POST videos/edits": Operation("videos.edits", "other"),
    "POST videos/extensions": Operation("videos.extensions", "other"),
    "POST videos/*/remix": Operation("videos.remix", "other"),
    "POST fine_tuning/jobs": Operation("fine_tuning.jobs", "other"),
    "POST fine_tuning/alpha/graders/run": Operation("fine_tuning.graders.run", "other"),
    "POST evals/*/runs": Operation("evals.runs", "other"),
    "POST containers": Operation("containers", "other"),
    "POST realtime/calls": Operation("realtime.calls", "other"),
    "POST files": Operation("files", "nothing"),
    "GET models": Operation("models", "nothing"),
}
_LONGEST: Final = max(pattern.count("/") for pattern in _TABLE) + 1


def operation_of(method: str, path: str) -> Operation:
    """Return the operation of an upstream path (without its query); unknown ones bill nothing."""
    segments = [segment for segment in path.split("/") if segment]
    for length in range(min(_LONGEST, len(segments)), 0, -1):
        suffix = segments[-length:]
        for stars in _STARS[length]:
            pattern = "/".join("*" if i in stars else s for i, s in enumerate(suffix))
            if operation := _TABLE.get(f"{method} {pattern}"):
                return operation
    return _UNKNOWN


def _star_places(length: int) -> list[tuple[int, ...]]:
    """List where patterns of this many segments have stars, those with the fewest first."""
    places = {
        tuple(i for i, s in enumerate(pattern.split(" ")[1].split("/")) if s == "*")
        for pattern in _TABLE
        if pattern.count("/") + 1 == length
    }
    return sorted(places, key=len)


_STARS: Final = {length: _star_places(length) for length in range(1, _LONGEST + 1)}
