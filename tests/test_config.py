import re
import tomllib
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.capture import CapturePolicy, parse_capture
from proxy.config import (
    Config,
    ConfigError,
    load,
)
from proxy.pricing import CustomPrice

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"


def problems(
    path: Path | None = None,
    environ: dict[str, str] | None = None,
    overrides: dict[str, str] | None = None,
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, overrides or {})
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return str(caught.value).splitlines()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "traceway.toml"


def test_without_anything_set_the_defaults_hold() -> None:
    assert load(None, {}) == Config()
    assert Config().upstreams["openai"].url == "https://api.openai.com"
    assert Config().upstreams["openai"].inject_usage == "always"


def test_the_example_file_equals_the_defaults() -> None:
    assert load(EXAMPLE, {}) == Config()


def test_the_example_file_has_every_key_of_a_price_and_they_load(file: Path) -> None:
    text = EXAMPLE.read_text()
    prices = re.sub(r"^# ?", "", text[text.index("# [[prices]]") :], flags=re.M)
    file.write_text(prices)
    assert set(tomllib.loads(prices)["prices"][0]) == {key.name for key in fields(CustomPrice)}
    assert load(file, {}).prices == (
        CustomPrice(
            model="acme-*",
            input_per_million_usd=Decimal("1.25"),
            output_per_million_usd=Decimal(10),
            cached_input_per_million_usd=Decimal("0.125"),
            cache_write_per_million_usd=Decimal("1.25"),
            service_tier="standard",
        ),
    )


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    file.write_text('[server]\nport = 1\ndrain_s = 1\n[database]\npath = "file.db"\n')
    environ = {"TRACEWAY_SERVER_PORT": "2", "TRACEWAY_SERVER_DRAIN_S": "2.5"}
    config = load(file, environ, {"server.port": "3"})
    assert config.server.port == 3
    assert config.server.drain_s == 2.5
    assert config.database.path == Path("file.db")


def test_the_environment_sets_keys_of_every_kind() -> None:
    config = load(
        None,
        {
            "TRACEWAY_SERVER_ALLOWED_HOSTS": "a.local, b.local",
            "TRACEWAY_DATABASE_PATH": "2024",
            "TRACEWAY_RECORDING_DURABILITY": "strict",
            "TRACEWAY_RECORDING_CAPTURE": "preview(500)",
            "TRACEWAY_RECORDING_BODY_BYTES": "0",
            "TRACEWAY_RECORDING_KEEP_RAW_STREAMS": "true",
            "TRACEWAY_SESSIONS_INFER": "False",
            "TRACEWAY_UPSTREAMS_OPENAI_URL": "http://127.0.0.1:9/base/",
            "TRACEWAY_UPSTREAMS_MY_OWN_URL": "http://own",
            "TRACEWAY_UPSTREAMS_MY_OWN_CONNECT_TIMEOUT_S": "1",
        },
    )
    assert config.server.allowed_hosts == ("a.local", "b.local")
    assert config.database.path == Path("2024")
    assert config.recording.durability == "strict"
    assert config.recording.capture == CapturePolicy("preview", 500)
    assert config.recording.body_bytes == 0
    assert config.recording.keep_raw_streams is True
    assert config.sessions.infer is False
    assert config.upstreams["openai"].url == "http://127.0.0.1:9/base"
    assert config.upstreams["my_own"].connect_timeout_s == 1.0


def test_an_empty_variable_and_one_of_somebody_else_count_as_not_set() -> None:
    environ = {"TRACEWAY_SERVER_PORT": "", "TRACEWAY_API_KEY": "x", "SERVER_PORT": "1"}
    assert load(None, environ) == Config()


def test_a_variable_reaches_an_upstream_whose_name_has_a_hyphen(file: Path) -> None:
    file.write_text('[upstreams.my-own]\nurl = "http://a"\n')
    config = load(file, {"TRACEWAY_UPSTREAMS_MY_OWN_URL": "http://b"})
    assert {name: upstream.url for name, upstream in config.upstreams.items()} == {
        "openai": "https://api.openai.com",
        "my-own": "http://b",
    }


def test_only_the_built_in_upstream_injects_usage_and_has_prices_unasked(file: Path) -> None:
    file.write_text('[upstreams.openai]\nurl = "http://a"\n[upstreams.other]\nurl = "http://b"\n')
    upstreams = load(file, {}).upstreams
    assert upstreams["openai"].provider == "openai"
    assert upstreams["other"].provider == "unknown"
    assert upstreams["openai"].inject_usage == "always"
    assert upstreams["other"].inject_usage == "auto"


def test_tables_with_nothing_in_them_change_nothing(file: Path) -> None:
    file.write_text("prices = []\n[server]\n[upstreams.openai]\n")
    assert load(file, {}) == Config()


def test_every_mistake_is_reported_at_once_with_key_value_source_and_expectation(
    file: Path,
) -> None:
    file.write_text(
        """
        colour = "red"
        [server]
        port = 99_999
        prot = 3000
        host = "0.0.0.0:80"
        [recording]
        durability = "sage"
        [upstreams.vllm]
        provider = "openai"
        [upstreams."A B"]
        url = "http://user:secret@host"
        [[prices]]
        model = "acme-*"
        input_per_million_usd = -1
        """
    )
    environ = {"TRACEWAY_RECORDING_CHECKPOINT_S": "soon", "TRACEWAY_SEVER_PORT": "1"}
    found = problems(file, environ, {"database.path": "", "upstreams.vllm.uri": "http://a"})
    for start in [
        'TRACEWAY_SEVER_PORT = "1" (environment): expected the name TRACEWAY_SERVER_PORT',
        'server.host = "0.0.0.0:80" (traceway.toml): expected the address or name of this machine',
        "server.port = 99999 (traceway.toml): expected a TCP port (0: any free one), an integer",
        'database.path = "" (command line): expected the path of a file',
        'recording.durability = "sage" (traceway.toml): expected one of "safe", "strict", "fast"',
        'recording.checkpoint_s = "soon" (TRACEWAY_RECORDING_CHECKPOINT_S): expected seconds, a n',
        'upstreams.vllm.url = "" (not set): expected an http or https URL',
        'upstreams = "A B" (name of a table): expected a name of 1 to 32 characters',
        'upstreams.A B.url = "http://[redacted]@host" (traceway.toml): expected an http or https',
        "prices.0.input_per_million_usd = -1 (traceway.toml): expected USD per million tokens",
        'prices.0.output_per_million_usd = "" (not set): expected USD per million tokens',
        'colour = "red" (traceway.toml): expected a known key; config.example.toml has all',
        'server.prot = 3000 (traceway.toml): expected a known key; did you mean "server.port"?',
        'upstreams.vllm.uri = "http://a" (command line): expected a known key; did you mean "upst',
    ]:
        assert [line for line in found if line.startswith(start)], start
        found = [line for line in found if not line.startswith(start)]
    assert found == []


def test_a_host_that_others_reach_without_keys_is_a_mistake() -> None:
    [line] = problems(
        overrides={"server.host": "0.0.0.0", "auth.mode": "off"}  # noqa: S104  # it is refused
    )
    assert 'auth.mode = "off"' in line
    assert "other machines reach" in line


def test_a_body_cap_above_the_memory_bound_is_a_mistake() -> None:
    [line] = problems(environ={"TRACEWAY_RECORDING_MEMORY_BYTES": "1048576"})
    assert line == (
        "recording.body_bytes = 8388608 (memory_bytes is 1048576): expected at most"
        " recording.memory_bytes, which bounds the bodies of all calls in memory"
    )


@pytest.mark.parametrize("content", [b"port = ", b"\xff", b"a = 1\na = 2", b"a = " + b"9" * 5000])
def test_a_file_that_is_not_toml_is_one_problem_that_names_it(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    [line] = problems(file)
    assert str(file)[:80] in line
    assert line.endswith("expected valid TOML")


def test_a_file_that_cannot_be_read_is_reported_together_with_the_rest(tmp_path: Path) -> None:
    found = problems(tmp_path, {"TRACEWAY_SERVER_PORT": "no"})
    assert len(found) == 2
    assert found[0].endswith("(Is a directory): expected a file to read")


def test_a_provider_key_is_no_setting_and_no_message_shows_one(file: Path) -> None:
    key = "sk-proj-0123456789abcdef"
    set_aside = {"TRACEWAY_PROVIDER_KEY_OPENAI": key, "TRACEWAY_PROVIDER_KEY_OPENAI__A": key}
    assert load(None, set_aside) == Config()
    file.write_text(f'[upstreams.openai]\napi_key = "{key}"\nApiKey = "{key}"')
    found = problems(
        file,
        {"TRACEWAY_UPSTREAMS_OPENAI_KEY": key, "TRACEWAY_UPSTREAM_OPENAI_KEY": key},
        {"upstreams.openai.token": key},
    )
    assert [line.partition(" (")[0] for line in found] == [
        'TRACEWAY_UPSTREAMS_OPENAI_KEY = "[not shown]"',
        'TRACEWAY_UPSTREAM_OPENAI_KEY = "[not shown]"',
        'upstreams.openai.api_key = "[not shown]"',
        'upstreams.openai.ApiKey = "[not shown]"',
        'upstreams.openai.token = "[not shown]"',
    ]


def test_headers_of_the_export_may_be_secret_and_are_not_shown(file: Path) -> None:
    file.write_text('[export]\notlp_headers = "authorization: Bearer abc"')
    (line,) = problems(file)
    assert line.startswith("export.otlp_headers = [not shown] (")
    assert "abc" not in line
    config = load(None, {"TRACEWAY_EXPORT_OTLP_HEADERS": "authorization=Bearer%20abc"})
    assert "abc" not in repr(config)


@pytest.mark.parametrize("text", ["server = 3", "server.port.x = 1", "upstreams = 1", "prices = 1"])
def test_a_table_in_the_wrong_place_is_an_unknown_key(file: Path, text: str) -> None:
    file.write_text(text)
    assert "expected a known key" in problems(file)[0]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("full", CapturePolicy("full", 2000)),
        (" Preview ", CapturePolicy("preview", 2000)),
        ("preview(0)", CapturePolicy("preview", 0)),
        ("PREVIEW(123456789)", CapturePolicy("preview", 123_456_789)),
        ("off", CapturePolicy("off", 2000)),
        ("", None),
        ("none", None),
        ("preview()", None),
        ("preview(-1)", None),
        ("preview(1234567890)", None),
        ("preview(٣)", None),
        ("full\nfull", None),
    ],
)
def test_capture_is_full_preview_with_a_size_or_off(
    text: str, policy: CapturePolicy | None
) -> None:
    assert parse_capture(text) == policy


@given(
    st.text(max_size=20)
    | st.text("0123456789-+_e. \t\u0663", max_size=12).map("preview({})".format)
    | st.sampled_from(["full", "preview", "off"]).flatmap(
        lambda mode: st.sampled_from([mode, mode.upper(), f" {mode}\t", f"{mode},full"])
    )
)
def test_any_text_is_a_capture_policy_or_none(text: str) -> None:
    policy = parse_capture(text)
    if policy is not None:
        word, _, size = text.strip().lower().partition("(")
        assert policy.mode == word
        assert policy.preview_bytes == (int(size.removesuffix(")")) if size else 2000)
        assert 0 <= policy.preview_bytes < 10**9


def test_a_proxy_that_cannot_be_one_is_a_mistake_without_its_password() -> None:
    assert problems(environ={"HTTPS_PROXY": "socks5://joe:pass@proxy:1080"}) == [
        'HTTPS_PROXY = "[not shown]" (environment): expected an http or https proxy, as'
        " http://proxy.example:3128, or nothing; NO_PROXY names the hosts that are reached without"
        " it"
    ]


def test_a_proxy_that_no_upstream_needs_may_be_of_any_kind() -> None:
    environ = {"ALL_PROXY": "socks5://proxy:1080", "NO_PROXY": "api.openai.com"}
    assert load(None, environ).egress.hop("https://api.openai.com") is None


def test_upstreams_have_the_proxy_of_the_environment() -> None:
    config = load(None, {"https_proxy": "proxy.example:3128"})
    assert str(config.egress.hop(config.upstreams["openai"].url)) == "http://proxy.example:3128"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://traceway@localhost/traceway",
        "postgres://u:p%40ss@db-1:5433/name?sslmode=require",
        "postgresql://u:p@a:5432,b:5432/name?target_session_attrs=read-write",
        "postgresql:///name?host=/run/postgresql",
    ],
)
def test_a_database_may_be_the_address_of_a_server(address: str) -> None:
    assert load(None, {"TRACEWAY_DATABASE_URL": address}).database.url == address
    assert address not in repr(load(None, {"TRACEWAY_DATABASE_URL": address}))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("database.url", "mysql://u:secret@host/name"),
        ("database.url", "postgresql:u:secret@host/name"),
        ("database.url", "postgresql://u:sec ret@host/name"),
        ("database.url", "postgresql://u:secret@host:no/name"),
        ("database.url", "postgresql://u:secret@[host/name"),
        ("database.path", "postgresql://u:secret@host/name"),
        ("database.path", "postgres:/u:secret@host/name"),
        ("database.uri", "postgresql://u:s/ecret@host/name"),
    ],
)
def test_what_is_no_address_of_a_database_is_not_shown(key: str, text: str) -> None:
    (line,) = problems(None, {}, {key: text})
    assert "postgresql://user:password@host/name" in line or "known key" in line
    assert "ecret@" not in line.replace("password@", "")
