"""What each page needs of whoever asks for it."""

from types import SimpleNamespace
from typing import Any

from proxy.access import ADMIN, ANY, OPEN, READ
from proxy.ui.routes import pages


class _Handlers:
    """Handlers of any name."""

    def __getattr__(self, name: str) -> object:
        return SimpleNamespace(name=name)

    def page(self, handler: object) -> object:
        return handler


def needs() -> dict[tuple[str, str], object]:
    """Give what each page needs, by method and path."""
    handlers: list[Any] = [_Handlers() for _ in range(9)]
    return {(route.method, route.path): route.need for route in pages(*handlers)}


def test_nothing_is_open_but_the_way_in_and_what_it_looks_like() -> None:
    found = {path for (_, path), need in needs().items() if need is OPEN}
    assert found == {"/sign-in", "/static/{version}/{name}"}


def test_whoever_is_in_may_leave_and_only_admins_change_anything() -> None:
    changes = {path: need for (method, path), need in needs().items() if method != "GET"}
    assert changes.pop("/sign-in") is OPEN
    assert changes.pop("/sign-out") == ANY
    assert set(changes.values()) == {ADMIN}


def test_the_settings_are_for_admins_and_what_is_recorded_for_readers() -> None:
    for (method, path), need in needs().items():
        if path.startswith("/settings") or path.endswith("/delete"):
            assert need == ADMIN
        elif method == "GET" and need is not OPEN:
            assert need == READ
