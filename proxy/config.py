"""Configuration: a TOML file, then the environment, then the command line -> frozen dataclasses.

Owns where a key is set, and what is set over what; the keys themselves are in sections.py.
Invariant: a `Config` that `load` returned is valid; what is wrong is reported all at once, each
with key, value, where it was set, and what was expected. Reads nothing but the one file: the
environment is handed in.
"""

import contextlib
import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast, get_args, get_type_hints

from proxy import config_values as values
from proxy.egress import BadProxy, Egress, from_environment
from proxy.pricing import CustomPrice
from proxy.sections import (
    OPENAI,
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

T = TypeVar("T")
Reader = Callable[[object], Any]
Key = tuple[str, ...]  # ("server", "port"), ("upstreams", "openai", "url")

_NEEDS_KEYS: Final = (
    '"keys" or "auto", since other machines reach server.host, and whoever does could spend your'
    " provider's money"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that can be set; `upstreams` by name, `egress` how they are reached."""

    server: ServerConfig = field(default_factory=ServerConfig)
    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    sessions: SessionsConfig = field(default_factory=SessionsConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    upstreams: Mapping[str, UpstreamConfig] = field(default_factory=lambda: {"openai": OPENAI})
    prices: tuple[CustomPrice, ...] = ()
    egress: Egress = field(default_factory=Egress)


_SECTIONS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "server": ServerConfig,
        "database": DatabaseConfig,
        "recording": RecordingConfig,
        "retention": RetentionConfig,
        "sessions": SessionsConfig,
        "ingest": IngestConfig,
        "export": ExportConfig,
        "auth": AuthConfig,
        "limits": LimitsConfig,
    }
)
# The tables there are, and how many names lead to one.
_TABLES: Final = MappingProxyType({**dict.fromkeys(_SECTIONS, 1), "upstreams": 2, "prices": 1})
_PRICE: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "model": values.model,
        "input_per_million_usd": values.money,
        "output_per_million_usd": values.money,
        "cached_input_per_million_usd": values.money,
        "cache_write_per_million_usd": values.money,
        "service_tier": values.name,
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake; `source` is the file, the variable or the command line that holds it."""

    key: str
    value: str
    source: str
    expected: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value} ({self.source}): expected {self.expected}"


class ConfigError(Exception):
    """The configuration has mistakes: `problems` holds all, and the text has a line for each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """Read the file, let `environ` override it, and `overrides` both; check every value.

    The environment names a key TRACEWAY_SECTION_KEY and TRACEWAY_UPSTREAMS_NAME_KEY; an empty
    variable counts as not set. `overrides` have keys as "upstreams.openai.url".

    Raises:
        ConfigError: with every mistake that was found.
    """
    loading = _Loading()
    if path is not None:
        loading.read_file(path)
    loading.read_environment(environ)
    for dotted, text in overrides.items():
        loading.settings[tuple(dotted.split("."))] = _Setting(text, "command line", typed=False)

    server = loading.take(ServerConfig, ("server",))
    database = loading.take(DatabaseConfig, ("database",))
    recording = loading.take(RecordingConfig, ("recording",))
    retention = loading.take(RetentionConfig, ("retention",))
    sessions = loading.take(SessionsConfig, ("sessions",))
    ingest = loading.take(IngestConfig, ("ingest",))
    export = loading.take(ExportConfig, ("export",))
    auth = loading.take(AuthConfig, ("auth",))
    limits = loading.take(LimitsConfig, ("limits",))
    upstreams = {name: loading.take_upstream(name) for name in loading.upstream_names()}
    prices = [loading.take_price(number) for number in loading.below("prices")]
    egress = from_environment(environ)
    targets = [upstream for upstream in upstreams.values() if upstream]
    if export and export.otlp_url:
        targets.append(UpstreamConfig(url=export.otlp_url))
    loading.check_egress(egress, targets)
    loading.report_unknown_keys()
    if recording and recording.body_bytes > recording.memory_bytes:
        loading.report(
            ("recording", "body_bytes"),
            _Setting(recording.body_bytes, f"memory_bytes is {recording.memory_bytes}"),
            "at most recording.memory_bytes, which bounds the bodies of all calls in memory",
        )
    if server and auth and auth.mode == "off" and not values.is_loopback(server.host):
        loading.report(("auth", "mode"), _Setting("off", f"host is {server.host}"), _NEEDS_KEYS)
    if retention and 0 < retention.metadata_days < retention.content_days:
        loading.report(
            ("retention", "content_days"),
            _Setting(retention.content_days, f"metadata_days is {retention.metadata_days}"),
            "at most retention.metadata_days, with which the content goes as well",
        )
    if loading.problems:
        raise ConfigError(tuple(loading.problems))
    # Nothing is None where there was no problem.
    return Config(
        server=cast(ServerConfig, server),
        database=cast(DatabaseConfig, database),
        recording=cast(RecordingConfig, recording),
        retention=cast(RetentionConfig, retention),
        sessions=cast(SessionsConfig, sessions),
        ingest=cast(IngestConfig, ingest),
        export=cast(ExportConfig, export),
        auth=cast(AuthConfig, auth),
        limits=cast(LimitsConfig, limits),
        upstreams=cast(dict[str, UpstreamConfig], upstreams),
        prices=tuple(cast(list[CustomPrice], prices)),
        egress=egress,
    )


@dataclass(frozen=True, slots=True)
class _Setting:
    value: object
    source: str
    typed: bool = True  # False: text of the environment or of the command line


class _Loading:
    """One load: `settings` that nobody has taken yet, and the `problems` found so far."""

    def __init__(self) -> None:
        self.settings: dict[Key, _Setting] = {}
        self.problems: list[Problem] = []

    def report(self, key: Key, setting: _Setting, expected: str) -> None:
        value = "[not shown]" if _is_secret(key, setting.value) else _shown(setting.value)
        self.problems.append(Problem(".".join(key), value, setting.source, expected))

    def read_file(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                table = tomllib.load(file, parse_float=Decimal)
        except OSError as error:
            self.report(("file",), _Setting(str(path), str(error.strerror)), "a file to read")
        except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, an integer too long
            self.report(("file",), _Setting(str(path), str(error)), "valid TOML")
        else:
            self.settings |= {key: _Setting(v, path.name) for key, v in _leaves((), table)}

    def read_environment(self, environ: Mapping[str, str]) -> None:
        keys = [key for name in self.upstream_names() for key in _keys_below(name)]
        variables = {"TRACEWAY_" + "_".join(key).upper().replace("-", "_"): key for key in keys}
        for variable, text in environ.items():
            if not variable.startswith("TRACEWAY_") or not text:
                continue
            key = variables.get(variable)
            if key is None and (upstream := _UPSTREAM_VARIABLE.fullmatch(variable)):
                key = ("upstreams", upstream[1].lower(), upstream[2].lower())
            if key is not None:
                self.settings[key] = _Setting(text, variable, typed=False)
            # Others use the prefix too (a client's own variables): only a near miss is a mistake.
            elif near := difflib.get_close_matches(variable, variables, n=1, cutoff=0.85):
                setting = _Setting(_unless_secret(variable, text), "environment")
                self.report((variable,), setting, f"the name {near[0]}")

    def below(self, section: str) -> list[str]:
        """Give the names of the tables in a section, each once, in their order."""
        return list(
            dict.fromkeys(key[1] for key in self.settings if key[0] == section and len(key) > 1)
        )

    def upstream_names(self) -> list[str]:
        return list(dict.fromkeys(["openai", *self.below("upstreams")]))

    def take_upstream(self, name: str) -> UpstreamConfig | None:
        try:
            values.name(name)
        except ValueError as error:
            self.report(("upstreams",), _Setting(name, "name of a table"), str(error))
        return self.take(
            UpstreamConfig, ("upstreams", name), asdict(OPENAI) if name == "openai" else None
        )

    def take_price(self, number: str) -> CustomPrice | None:
        return self.take(CustomPrice, ("prices", number))

    def take(
        self, cls: type[T], prefix: Key, defaults: Mapping[str, object] | None = None
    ) -> T | None:
        """Make a dataclass of the settings below a prefix; None where something was wrong."""
        before = len(self.problems)
        found: dict[str, object] = {}
        for name, read, default in _keys_of(cls):
            key = (*prefix, name)
            default = defaults[name] if defaults else default
            setting = self.settings.pop(key, None)
            if setting is None and default is not MISSING:
                found[name] = default
                continue
            setting = setting or _Setting("", "not set")
            value = setting.value if setting.typed else _from_text(str(setting.value), default)
            try:
                found[name] = read(value)
            except ValueError as error:
                self.report(key, setting, str(error))
        return cls(**found) if len(self.problems) == before else None

    def check_egress(self, egress: Egress, upstreams: Iterable[UpstreamConfig]) -> None:
        """Report each variable that names no proxy for an upstream which needs one."""
        bad: dict[str, BadProxy] = {}
        for upstream in upstreams:
            try:
                egress.hop(upstream.url)
            except BadProxy as error:
                bad[error.variable] = error
        for variable, found in bad.items():
            self.report((variable,), _Setting(found.value, "environment"), str(found))

    def report_unknown_keys(self) -> None:
        """Report what nobody took."""
        known = [".".join(key) for name in self.upstream_names() for key in _keys_below(name)]
        for key, setting in self.settings.items():
            if setting.value in ({}, []) and key[0] in _TABLES and len(key) <= _TABLES[key[0]]:
                continue  # a table with nothing in it
            near = difflib.get_close_matches(".".join(key), known, n=1)
            hint = f'did you mean "{near[0]}"?' if near else "config.example.toml has all"
            setting = replace(setting, value=_unless_secret(key[-1], setting.value))
            self.report(key, setting, f"a known key; {hint}")


def _keys_of(cls: type[Any]) -> Iterator[tuple[str, Reader, object]]:
    """Give each key of a dataclass with its reader and its default (or MISSING)."""
    hints = get_type_hints(cls, include_extras=True)
    for key in fields(cls):
        read = _PRICE[key.name] if cls is CustomPrice else get_args(hints[key.name])[1]
        yield key.name, read, key.default


def _keys_below(upstream: str) -> Iterator[Key]:
    """Give every key there is, those of upstreams for one upstream."""
    for section, cls in _SECTIONS.items():
        yield from ((section, name) for name, _, _ in _keys_of(cls))
    yield from (("upstreams", upstream, name) for name, _, _ in _keys_of(UpstreamConfig))


_UPSTREAM_VARIABLE: Final = re.compile(
    "TRACEWAY_UPSTREAMS_([A-Z0-9_]+)_("
    + "|".join(name.upper() for name, _, _ in _keys_of(UpstreamConfig))
    + ")"
)


def _leaves(prefix: Key, value: object) -> Iterator[tuple[Key, object]]:
    """Flatten tables and lists of tables; an empty table is a leaf, so that it is not lost."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        value = {str(number): row for number, row in enumerate(value)}
    if isinstance(value, dict) and (value or prefix):
        if not value:
            yield prefix, value
        for name, below in value.items():
            yield from _leaves((*prefix, name), below)
    elif prefix:
        yield prefix, value


def _from_text(text: str, default: object) -> object:
    """Give the TOML value that a text means, where the key's default is not a text itself."""
    if isinstance(default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(default, int | float):
        for number in (int, float):
            with contextlib.suppress(ValueError):
                return number(text)
    return text


def _is_secret(key: Key, value: object) -> bool:
    """Tell whether there may be a secret in a value; in an address that is wrong, anywhere."""
    is_address = key == ("database", "url") or (key[0] == "database" and ":" in str(value))
    return is_address or key[-1].endswith("_headers")


def _unless_secret(name: str, value: object) -> object:
    """Give the value of a name that we do not know, unless it sounds like that of a secret."""
    return "[not shown]" if re.search("key|token|secret|passw", name.lower()) else value


def _shown(value: object) -> str:
    """Write a value for a message, without what may be a secret in a URL."""
    text = (
        str(value) if isinstance(value, int | float | Decimal) else json.dumps(value, default=str)
    )
    text = re.sub(r"//[^\s\"]*@", "//[redacted]@", text)
    text = re.sub(r"\?[^\"]*", "?[redacted]", text)
    return text if len(text) <= 100 else text[:100] + "..."
