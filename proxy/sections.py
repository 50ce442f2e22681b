"""The sections of the configuration: every key, its default, and the reader that checks its value.

A key is a field: its annotation holds the reader. What each key means, and the reason for its
default, stands in config.example.toml; config.py fills them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from proxy import config_values as values
from proxy.capture import FULL, CapturePolicy
from proxy.keyring import AuthMode

Durability = Literal["safe", "strict", "fast"]
InjectUsage = Literal["always", "auto", "never"]
Unpriced = Literal["refuse", "allow"]
LogFormat = Literal["text", "json"]

# SQLite refuses a value of more than 10^9 bytes (SQLITE_MAX_LENGTH).
_MAX_BODY_BYTES: Final = 1_000_000_000
_TIB: Final = 1 << 40
_DAY_S: Final = 86_400
_OPEN_FILES: Final = "connections (0: as the limit of open files allows)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where we listen, and for whom."""

    host: Annotated[str, values.host] = "127.0.0.1"
    port: Annotated[int, values.integer(0, 65_535, "a TCP port (0: any free one)")] = 3000
    allowed_hosts: Annotated[tuple[str, ...], values.host_names] = ()
    allowed_origins: Annotated[tuple[str, ...], values.origins] = ()
    max_request_bytes: Annotated[int, values.integer(0, _TIB, "bytes (0: no limit)")] = 0
    max_connections: Annotated[int, values.integer(0, 1_000_000, _OPEN_FILES)] = 0
    header_timeout_s: Annotated[float, values.number(0.1, 600, "seconds")] = 10.0
    body_timeout_s: Annotated[float, values.number(0.1, _DAY_S, "seconds")] = 300.0
    write_timeout_s: Annotated[float, values.number(0.1, _DAY_S, "seconds")] = 300.0
    drain_s: Annotated[float, values.number(0, 600, "seconds")] = 10.0
    log_calls: Annotated[bool, values.boolean] = True
    log_format: Annotated[LogFormat, values.choice(*get_args(LogFormat))] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """Where the recordings are: in the file, unless `url` names a PostgreSQL database."""

    path: Annotated[Path, values.file_path] = Path("traceway.db")
    url: Annotated[str, values.maybe_database_url] = field(default="", repr=False)
    query_timeout_s: Annotated[float, values.number(0.1, 3_600, "seconds")] = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingConfig:
    """What is recorded, how surely, and within how much memory."""

    durability: Annotated[Durability, values.choice(*get_args(Durability))] = "safe"
    memory_bytes: Annotated[int, values.integer(1 << 20, _TIB, "bytes")] = 64 << 20
    capture: Annotated[CapturePolicy, values.capture] = FULL
    body_bytes: Annotated[int, values.integer(0, _MAX_BODY_BYTES, "bytes")] = 8 << 20
    checkpoint_s: Annotated[float, values.number(0.1, 60, "seconds")] = 2.0
    keep_raw_streams: Annotated[bool, values.boolean] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """How long what is recorded is kept; 0 is for ever, and no cap."""

    content_days: Annotated[int, values.integer(0, 36_500, "days (0: for ever)")] = 0
    metadata_days: Annotated[int, values.integer(0, 36_500, "days (0: for ever)")] = 0
    max_bytes: Annotated[int, values.integer(0, 1 << 50, "bytes (0: no cap)")] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsConfig:
    """How a call that names no session gets one."""

    infer: Annotated[bool, values.boolean] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """What applications hand in."""

    open_timeout_s: Annotated[float, values.number(1, 30 * _DAY_S, "seconds")] = 3_600.0
    max_body_bytes: Annotated[int, values.integer(1 << 10, 64 << 20, "bytes")] = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Where recorded calls are sent on to; "" is nowhere."""

    otlp_url: Annotated[str, values.maybe_http_url] = ""
    otlp_headers: Annotated[str, values.header_pairs] = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """Whether keys are needed, and what the providers' keys are sealed with."""

    mode: Annotated[AuthMode, values.choice(*get_args(AuthMode))] = "auto"
    key_file: Annotated[Path | None, values.maybe_file_path] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What keys and sessions may use."""

    calls_per_minute: Annotated[int, values.integer(0, 1_000_000, "calls (0: no limit)")] = 0
    reserve_output_tokens: Annotated[int, values.integer(0, 10_000_000, "tokens")] = 4096
    unpriced: Annotated[Unpriced, values.choice(*get_args(Unpriced))] = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """A target that calls are forwarded to; `url` has no slash at its end."""

    url: Annotated[str, values.http_url]
    provider: Annotated[str, values.name] = "unknown"
    inject_usage: Annotated[InjectUsage, values.choice(*get_args(InjectUsage))] = "auto"
    connect_timeout_s: Annotated[float, values.number(0.1, 60, "seconds")] = 4.0
    headers_timeout_s: Annotated[float, values.number(0.1, _DAY_S, "seconds")] = 600.0
    idle_timeout_s: Annotated[float, values.number(0.1, _DAY_S, "seconds")] = 600.0
    total_timeout_s: Annotated[float, values.number(0, _DAY_S, "seconds (0: no limit)")] = 0.0
    max_idle_connections: Annotated[int, values.integer(0, 65_536, "connections")] = 256


# There without being configured; a configuration changes single keys of it.
OPENAI: Final = UpstreamConfig(
    url="https://api.openai.com", provider="openai", inject_usage="always"
)
