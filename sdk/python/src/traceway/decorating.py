"""Functions that are traced: each call is a trace or a span of its own.

Plain functions, coroutine functions and generators of both kinds; what is made is of the same kind,
so that decorators stack. A generator's code is in its span only while it runs: between two values
its reader's code is where it was.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from traceway import context

if TYPE_CHECKING:
    from traceway.handles import Handle

F = TypeVar("F", bound=Callable[..., Any])


def decorated(begin: "Callable[[], Handle]", function: F) -> F:
    """Give a function that is called as the given one is, inside a handle of its own."""
    made: Callable[..., Any]
    if inspect.isasyncgenfunction(function):
        made = _async_generator(begin, function)
    elif inspect.isgeneratorfunction(function):
        made = _generator(begin, function)
    elif inspect.iscoroutinefunction(function):

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return await function(*args, **kwargs)

        made = coroutine
    else:

        def plain(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return function(*args, **kwargs)

        made = plain
    return cast(F, functools.wraps(function)(made))


class _Inside:
    """Where a generator's code is; `step` puts the running code there for one step of it."""

    def __init__(self, handle: "Handle") -> None:
        self.handle = handle
        handle.started()
        self._place = cast("context.Place | None", handle)

    @contextmanager
    def step(self) -> Iterator[None]:
        reader = context.here()
        context.swap(self._place)
        try:
            yield
        finally:
            self._place = context.here()
            context.swap(reader)


def _generator(
    begin: "Callable[[], Handle]", function: Callable[..., Any]
) -> Callable[..., Iterator[Any]]:
    def stepped(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        inside = _Inside(begin())
        step, given = generator.send, None
        try:
            while True:
                with inside.step():
                    try:
                        value = step(given)
                    except StopIteration as stop:
                        inside.handle.over()
                        return stop.value
                try:
                    given = yield value
                    step = generator.send
                except GeneratorExit:
                    with inside.step():
                        generator.close()
                    raise
                except BaseException as error:
                    step, given = generator.throw, error
        except BaseException as error:
            inside.handle.over(error)
            raise

    return stepped


def _async_generator(
    begin: "Callable[[], Handle]", function: Callable[..., Any]
) -> Callable[..., AsyncIterator[Any]]:
    async def stepped(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        inside = _Inside(begin())
        step, given = generator.asend, None
        try:
            while True:
                with inside.step():
                    try:
                        value = await step(given)
                    except StopAsyncIteration:
                        inside.handle.over()
                        return
                try:
                    given = yield value
                    step = generator.asend
                except GeneratorExit:
                    with inside.step():
                        await generator.aclose()
                    raise
                except BaseException as error:
                    step, given = generator.athrow, error
        except BaseException as error:
            inside.handle.over(error)
            raise

    return stepped
