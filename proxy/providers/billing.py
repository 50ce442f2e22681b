"""Usage objects of the OpenAI API: which count goes into which bucket.

Invariant: cached, reasoning, audio and image tokens are parts of input or output, never added to
them; a second usage in one answer (an image tool, a vectoriser) has its own model and is kept
apart; seconds are not tokens. Whose usage it is, and whether it is billed at all, is decided by
the caller.

Source: openai-python 3.54.0, types ``CompletionUsage``, ``ResponseUsage``, ``ImagesResponse``,
``Transcription``, ``Response.tool_usage`` (November 2026).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from proxy.providers.facts import Bill
from proxy.providers.lenient import items, mapping, name
from proxy.usage import fit, take
from storage.records import Tokens, add

# Longer audio than this is not one call. The limit of an upload is 25 MB, about an hour.
_MAX_SECONDS: Final = 7 * 24 * 3600.0


class Usage(NamedTuple):
    """What one answer reports: the usage of its own model, of others, or seconds of audio."""

    main: Tokens = Tokens()
    apart: tuple[Bill, ...] = ()
    seconds: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def reported(self) -> bool:
        """Whether the provider reported anything usable."""
        return (
            self.main.total is not None
            or self.seconds is not None
            or any(bill.tokens.total is not None for bill in self.apart)
        )


def read_usage(
    usage: object, svg_usage: object = None, tool_usage: object = None, tools: object = None
) -> Usage:
    """Read the ``usage`` of an answer and what is billed beside it.

    ``tools`` are those that the answer repeats: an image tool may name its model there.
    """
    notes: list[str] = []
    report = mapping(usage)
    if usage is not None and not isinstance(usage, dict):
        notes.append("usage is not an object")
    seconds = None
    if report.get("type") == "duration":
        seconds = _seconds(report.get("seconds"), notes)
        main = Tokens()
    else:
        main = _tokens(report, notes)
    apart: list[Bill] = []
    if svg := mapping(svg_usage):
        apart.append(Bill(name(svg.get("model")), _tokens(svg, notes)))
    if image_tool := mapping(mapping(tool_usage).get("image_gen")):
        tokens = _tokens(image_tool, notes)
        if tokens.total:  # zeros are always there, whether the tool ran or not
            apart.append(Bill(_image_model(tools), tokens))
    if searches := take(mapping(mapping(tool_usage).get("web_search")), "num_requests", notes):
        notes.append(f"{searches} web searches, billed apart")
    return Usage(main=main, apart=tuple(apart), seconds=seconds, notes=tuple(notes))


def _tokens(report: Mapping[str, object], notes: list[str]) -> Tokens:
    """Put the counts of one usage object into buckets; both generations of names are read."""
    input_key = "prompt_tokens" if "prompt_tokens" in report else "input_tokens"
    output_key = "completion_tokens" if "completion_tokens" in report else "output_tokens"
    input_count = take(report, input_key, notes)
    output_count = take(report, output_key, notes)
    total = take(report, "total_tokens", notes)
    if output_key not in report and input_count is not None and total == input_count:
        output_count = 0  # embeddings: the total says that there is no output
    both_known = input_count is not None and output_count is not None
    if both_known and total is not None and total != add(input_count, output_count):
        notes.append("total_tokens is not input plus output")
    # Transcriptions and realtime write `input_token_details`, without the s.
    input_parts = _first(
        report, "prompt_tokens_details", "input_tokens_details", "input_token_details"
    )
    output_parts = _first(
        report, "completion_tokens_details", "output_tokens_details", "output_token_details"
    )
    tokens = Tokens(
        input=input_count,
        output=output_count,
        cached_input=take(_holder("cached_tokens", input_parts, report), "cached_tokens", notes),
        cache_write=take(input_parts, "cache_write_tokens", notes),
        audio_input=take(input_parts, "audio_tokens", notes),
        image_input=take(input_parts, "image_tokens", notes),
        # The usage of a vectoriser and of an image tool has no details for these two.
        reasoning=take(
            _holder("reasoning_tokens", output_parts, report), "reasoning_tokens", notes
        ),
        audio_output=take(output_parts, "audio_tokens", notes),
        image_output=take(output_parts, "image_tokens", notes),
    )
    return fit(tokens, notes)


def _first(report: Mapping[str, object], *keys: str) -> Mapping[str, object]:
    for key in keys:
        if parts := mapping(report.get(key)):
            return parts
    return {}


def _holder(
    key: str, details: Mapping[str, object], report: Mapping[str, object]
) -> Mapping[str, object]:
    return details if key in details else report


def _image_model(tools: object) -> str | None:
    """Return the model of the answer's image tool; None if it names none, or several."""
    models = {
        name(tool.get("model"))
        for tool in map(mapping, items(tools))
        if tool.get("type") == "image_generation"
    }
    return models.pop() if len(models) == 1 else None


def _seconds(value: object, notes: list[str]) -> float | None:
    # NaN fails both comparisons.
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= _MAX_SECONDS
    ):
        return float(value)
    if value is not None:
        notes.append("seconds out of range")
    return None
