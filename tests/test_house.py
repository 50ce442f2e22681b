"""The rules of the house, checked on the text of the source: imports, sizes, names, edges."""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path

from proxy.sections import (
    AuthConfig,
    DatabaseConfig,
    ExportConfig,
    IngestConfig,
    LimitsConfig,
    RecordingConfig,
    RetentionConfig,
    ServerConfig,
    SessionsConfig,
    UpstreamConfig,
)

ROOT = Path(__file__).parent.parent
SOURCES = tuple(
    str(path.relative_to(ROOT))
    for room in ("proxy", "storage")
    for path in sorted((ROOT / room).rglob("*.py"))
)

MAX_LINES = 400
# `except Exception` stands only where one call, or one batch, must not end all the others.
EDGES = {
    "proxy/forward.py",  # the handler: a failure of ours is one 500
    "proxy/recorder.py",  # the writer's loop: a failure costs records, never the calls
    "proxy/commits.py",  # each of its transactions
    "proxy/api/eraser.py",  # one order's failure ends neither the others nor the retention
}
WITHOUT_TESTS = {
    "proxy/__init__.py",
    "proxy/__main__.py",  # the command line: tests/test_main.py starts it as a process
    "proxy/assembly.py",  # wiring: tests/test_app.py starts what it gives
    "proxy/examining.py",  # a command: tests/test_main.py starts it too
    "proxy/api/__init__.py",
    "proxy/cli/__init__.py",
    "proxy/otlp/__init__.py",
    "proxy/providers/__init__.py",
    "proxy/providers/openai.py",  # a door: names that are tested where they are made
    "proxy/ui/__init__.py",
    "proxy/api/about.py",  # an entry of a table: test_fields.py tests the table
    "proxy/api/archive_fields.py",  # a part of it
    "proxy/api/ingest_fields.py",  # a part of it
    "proxy/api/erasing_fields.py",  # the same
    "proxy/api/erasing_operations.py",  # test_erasing.py and test_operations.py ask all of them
    "proxy/sections.py",  # fields: test_config.py tests what is read into them
    "storage/__init__.py",
    "storage/migrations/__init__.py",
    "storage/migrations/postgres/__init__.py",
    "storage/grants.py",  # fields without behaviour
    "storage/records.py",  # the same
    "storage/spending.py",  # fields, and one comparison that test_budgets.py makes
    "storage/columns.py",  # lists of columns: tested by the queries that are made of them
    "storage/handed.py",  # frozen values: tested by who makes and who reads them
    "storage/totals.py",
}
# Frozen values, which the data plane and storage hand to each other.
CROSSING = (
    *("storage.records", "storage.chain", "storage.grants", "storage.spending"),
    "storage.handed",
)
NO_NAMES = {"util", "helper", "common", "core", "manager", "base", "misc"}


@cache
def tree(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text())


@cache
def imports(source: str) -> frozenset[str]:
    """Give the modules that a file imports; `from a import b` counts as `a` and as `a.b`."""
    found = set()
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: an import names its module in full"
            found |= {f"{node.module}.{name.name}" for name in node.names} | {str(node.module)}
    return frozenset(found)


def importing(module: str, sources: tuple[str, ...] = SOURCES) -> set[str]:
    """Give the files that import a module or a part of it."""
    part = re.compile(rf"{re.escape(module)}(\..*)?")
    return {source for source in sources if any(map(part.fullmatch, imports(source)))}


def data_plane() -> tuple[str, ...]:
    doing = ("__main__", "backing_up", "examining", "transporting")
    commands = {f"proxy/{name}.py" for name in doing}
    parts = {"proxy/app.py", "proxy/assembly.py", *commands}
    return tuple(
        source
        for source in SOURCES
        if source.startswith("proxy/")
        and not source.startswith(("proxy/api/", "proxy/cli/", "proxy/ui/"))
        and source not in parts
    )


def handlers(source: str) -> Iterator[tuple[str, ast.ExceptHandler]]:
    """Give each exception that a file catches, by name, with its handler; "" is a bare except."""
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for kind in caught:
                yield (ast.unparse(kind) if kind is not None else ""), node


def test_storage_knows_nobody() -> None:
    rooms = {source for source in SOURCES if source.startswith("storage/")}
    assert importing("proxy") & rooms == set()
    assert importing("aiohttp") & rooms == set()


def test_the_data_plane_knows_neither_the_api_nor_the_pages_nor_the_whole() -> None:
    for module in ("proxy.api", "proxy.cli", "proxy.ui", "proxy.app"):
        assert importing(module, data_plane()) == set()


def test_only_the_command_line_knows_the_whole() -> None:
    assert importing("proxy.app") <= {"proxy/__main__.py"}
    assert importing("proxy.assembly") == {"proxy/app.py"}


def test_the_commands_know_a_server_by_its_api_alone() -> None:
    commands = tuple(source for source in SOURCES if source.startswith("proxy/cli/"))
    for module in ("storage", "aiohttp.web", "proxy.app", "proxy.recorder"):
        assert importing(module, commands) == set()
    assert importing("proxy.cli") - {*commands} == {"proxy/__main__.py"}


def test_of_the_data_plane_only_the_recorder_writes_to_storage() -> None:
    assert importing("storage.writes", data_plane()) == {"proxy/recorder.py"}


def test_the_data_plane_but_the_recorder_knows_only_what_crosses_into_storage() -> None:
    found = {
        f"{source}: {module}"
        for source in data_plane()
        if source not in ("proxy/recorder.py", "proxy/commits.py", "proxy/reclaim.py")
        for module in imports(source)
        if module.startswith("storage.") and not module.startswith(CROSSING)
    }
    assert found == set()


def test_no_source_file_is_longer_than_one_reads_in_one_go() -> None:
    lengths = {source: len((ROOT / source).read_text().splitlines()) for source in SOURCES}
    assert {source: n for source, n in lengths.items() if n > MAX_LINES} == {}


def test_each_source_file_has_its_test_file() -> None:
    def test_file(source: str) -> Path:
        inner = Path(source.removeprefix("proxy/"))
        return ROOT / "tests" / inner.parent / f"test_{inner.name}"

    missing = {source for source in SOURCES if not test_file(source).is_file()}
    assert missing - WITHOUT_TESTS == set()


def test_each_source_file_that_needs_no_test_file_is_there() -> None:
    assert [source for source in sorted(WITHOUT_TESTS) if not (ROOT / source).is_file()] == []


def test_no_file_is_named_after_nothing() -> None:
    def words(source: str) -> set[str]:
        return {word.removesuffix("s") for word in re.split(r"[/_.]", source)}

    assert [source for source in SOURCES if words(source) & NO_NAMES] == []


def test_each_source_file_says_what_it_owns() -> None:
    silent = {source for source in SOURCES if ast.get_docstring(tree(source)) is None}
    assert {source for source in silent if (ROOT / source).read_text().strip()} == set()


def test_everything_is_caught_at_the_edges_only() -> None:
    found = {
        source
        for source in SOURCES
        for name, _ in handlers(source)
        if name in {"", "Exception", "builtins.Exception"}
    }
    assert found - EDGES == set()


def test_what_ends_a_task_is_always_raised_again() -> None:
    found = {
        f"{source}:{handler.lineno}"
        for source in SOURCES
        for name, handler in handlers(source)
        if name.endswith(("BaseException", "CancelledError"))
        and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    }
    assert found == set()


def test_tasks_begin_in_one_file_only() -> None:
    found = {
        source
        for source in SOURCES
        for node in ast.walk(tree(source))
        if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future"}
    }
    assert found == {"proxy/tasks.py"}


def test_each_configuration_key_stands_in_the_example_file_with_a_comment_above() -> None:
    text = (ROOT / "config.example.toml").read_text()
    table = tomllib.loads(text)
    for section, cls in [
        (table["server"], ServerConfig),
        (table["database"], DatabaseConfig),
        (table["recording"], RecordingConfig),
        (table["retention"], RetentionConfig),
        (table["sessions"], SessionsConfig),
        (table["ingest"], IngestConfig),
        (table["export"], ExportConfig),
        (table["auth"], AuthConfig),
        (table["limits"], LimitsConfig),
        (table["upstreams"]["openai"], UpstreamConfig),
    ]:
        assert set(section) == {key.name for key in fields(cls)}
    for above, line in pairwise(text.splitlines()):
        assert not re.match(r"\w+ = ", line) or above.startswith("# "), line
