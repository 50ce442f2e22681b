"""What traces and spans have in common: they begin, hold spans, are somewhere, and end.

A handle is a context manager, an async one, a decorator, or is ended by `end()`. Invariant: nothing
here waits or does I/O, and nothing raises for what it is given.
"""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from traceway import context, values
from traceway.decorating import decorated

if TYPE_CHECKING:
    from traceway.client import Traceway
    from traceway.spans import Span, Trace

F = TypeVar("F", bound=Callable[..., Any])
H = TypeVar("H", bound="Handle")
# A kind by its name, or with fields of its own as {"type": ..., ...}.
Kind = str | Mapping[str, Any]


class Handle:
    """What traces and spans have in common: they begin, hold spans, and end."""

    __slots__ = ("_began_ns", "_within", "client", "is_over", "outer", "started_ns", "trace")

    client: "Traceway"
    trace: "Trace"
    outer: Optional["context.Place"]
    is_over: bool
    started_ns: int

    def _begin(self, client: "Traceway") -> None:
        self.client = client
        self.outer = None
        self.is_over = False
        self._within = False
        self.started_ns = time.time_ns()
        self._began_ns = time.perf_counter_ns()

    def end(self) -> None:
        raise NotImplementedError

    def fail(self, error: object) -> None:
        raise NotImplementedError

    def _unmake(self) -> None:
        """Be no more than the pattern for others."""
        self.is_over = True
        self.client.forget(self)

    def _again(self: H) -> H:
        """Begin another one like this, for one call of what it decorates."""
        raise NotImplementedError

    def started(self) -> None:
        """See to it that its trace is known before its spans are."""
        self.trace.open()

    def over(self, error: BaseException | None = None) -> None:
        """End it as the code in it ended."""
        self._within = False
        # A generator that its reader leaves early has done what was asked of it.
        if error is None or isinstance(error, GeneratorExit):
            self.end()
        else:
            self.fail(error)

    def span(
        self,
        name: object,
        *,
        kind: Kind = "custom",
        input: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> "Span":
        """Begin a span inside this one; in a trace, inside the running code's span of it.

        `kind` is one of `KINDS`, or a mapping with it as "type" and fields of its own; any other
        text is what the application calls a custom kind ("reranker").
        """
        return self.client.begin(self, self.trace, name, kind, input, metadata)

    def llm_call(
        self,
        name: object = None,
        *,
        model: str | None = None,
        provider: str | None = None,
        input: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> "Span":
        """Begin a span of a model call that does not go through the proxy."""
        kind = {"type": "llm_call", "model": model, "provider": provider}
        return self.span(name or model or "llm_call", kind=kind, input=input, metadata=metadata)

    def embedding(
        self,
        name: object = None,
        *,
        model: str | None = None,
        provider: str | None = None,
        input: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> "Span":
        """Begin a span of an embedding that does not go through the proxy."""
        kind = {"type": "embedding", "model": model, "provider": provider}
        return self.span(name or model or "embedding", kind=kind, input=input, metadata=metadata)

    def tool_call(
        self, name: object, *, input: Any = None, metadata: Mapping[str, Any] | None = None
    ) -> "Span":
        """Begin a span of a tool that runs."""
        return self.span(name, kind="tool_call", input=input, metadata=metadata)

    def retrieval(
        self, name: object, *, input: Any = None, metadata: Mapping[str, Any] | None = None
    ) -> "Span":
        """Begin a span of a search for what the model is given; the input is the query."""
        return self.span(name, kind="retrieval", input=input, metadata=metadata)

    def fs_read(self, path: object, *, metadata: Mapping[str, Any] | None = None) -> "Span":
        """Begin a span of a file that is read, named after it."""
        kind = {"type": "fs_read", "path": values.text_of(path)}
        return self.span(path, kind=kind, metadata=metadata)

    def fs_write(
        self, path: object, *, input: Any = None, metadata: Mapping[str, Any] | None = None
    ) -> "Span":
        """Begin a span of a file that is written, named after it."""
        kind = {"type": "fs_write", "path": values.text_of(path)}
        return self.span(path, kind=kind, input=input, metadata=metadata)

    def parent_for_spans(self) -> int:
        raise NotImplementedError

    def __enter__(self: H) -> H:
        self.trace.open()
        self._within = True
        self.outer = context.here()
        context.swap(self)  # type: ignore[arg-type]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.over(error)
        # Another one stands there where blocks end in another order than they began.
        if context.here() is not self:
            context.swap(context.here())

    async def __aenter__(self: H) -> H:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Decorate: each call of the function is then one like this, begun when it is called."""
        self._unmake()
        return decorated(self._again, function)
