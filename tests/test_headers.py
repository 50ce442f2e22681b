"""Header rules: what is removed, what stays as it was, and what nobody may read later."""

import base64

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import headers
from tests.timing import cpu_s

KEY = b"sk-proj-0123456789abcdefghij"

names = st.sampled_from(
    [b"X-A", b"x-a", b"Accept", b"Set-Cookie", b"te", b"Connection", b"Upgrade"]
)
pairs = st.lists(st.tuples(names, st.binary(max_size=8)), max_size=12)


def test_hop_by_hop_headers_and_those_that_connection_names_are_removed() -> None:
    kept = headers.end_to_end(
        [
            (b"Connection", b"X-Foo ,  close"),
            (b"x-foo", b"1"),
            (b"Keep-Alive", b"timeout=5"),
            (b"X-Bar", b"2"),
            (b"CONNECTION", b"x-baz"),
            (b"X-Baz", b"3"),
            (b"Transfer-Encoding", b"chunked"),
            (b"X-BAR", b"4"),
        ]
    )
    assert kept == [(b"X-Bar", b"2"), (b"X-BAR", b"4")]


def test_connection_cannot_take_the_length_or_the_host_away() -> None:
    sent = [(b"Host", b"a"), (b"Content-Length", b"2"), (b"Connection", b"content-length, host")]
    assert headers.end_to_end(sent) == sent[:2]


def test_every_header_of_ours_is_removed_in_any_case() -> None:
    sent = [(b"X-Traceway-Error", b"a"), (b"x-TRACEWAY-x", b"b"), (b"X-Tracewayish", b"c")]
    assert headers.end_to_end(sent) == sent[2:]


@given(pairs)
def test_what_remains_keeps_its_bytes_its_order_and_its_duplicates(
    sent: list[tuple[bytes, bytes]],
) -> None:
    kept = headers.end_to_end(sent)
    rest = iter(sent)
    assert all(pair in rest for pair in kept)
    dropped = [pair for pair in sent if pair[0].lower() in (b"x-a", b"accept", b"set-cookie")]
    if not any(name == b"Connection" for name, _ in sent):
        assert kept == dropped


@pytest.mark.parametrize(
    ("sent", "relayed"),
    [
        ([], [(b"Host", b"up")]),
        ([(b"A", b"1"), (b"HOST", b"us"), (b"B", b"2")], [b"A", b"Host", b"B"]),
        ([(b"Te", b"x"), (b"A", b"1"), (b"host", b"us")], [b"A", b"Host"]),
        ([(b"Expect", b"100-continue"), (b"Host", b"us"), (b"A", b"1")], [b"Host", b"A"]),
    ],
)
def test_the_upstreams_own_host_stands_where_the_clients_stood(
    sent: list[tuple[bytes, bytes]], relayed: list[object]
) -> None:
    found = headers.request_headers(sent, b"up")
    assert (b"Host", b"up") in found
    assert [name for name, _ in found] == [r if isinstance(r, bytes) else b"Host" for r in relayed]


@pytest.mark.parametrize(
    ("sent", "relayed"),
    [
        (b"traceway_sign_in=tw_si_a", []),
        (b"a=1; traceway_sign_in=tw_si_a", [b"a=1"]),
        (b"traceway_sign_in=tw_si_a; a=1;b=2 ", [b"a=1;b=2"]),
        (b"a=1;traceway_sign_in=;  b=2", [b"a=1;  b=2"]),
        (b"a=traceway_sign_in; traceway_sign_ins=1", [b"a=traceway_sign_in; traceway_sign_ins=1"]),
        (b"a=1;  b=2 ;", [b"a=1;  b=2 ;"]),
    ],
)
def test_the_cookie_of_a_sign_in_stays_here(sent: bytes, relayed: list[bytes]) -> None:
    found = headers.request_headers([(b"Host", b"us"), (b"cOOkie", sent)], b"up")
    assert found == [(b"Host", b"up"), *((b"cOOkie", value) for value in relayed)]


@pytest.mark.parametrize(
    ("sent", "swapped"),
    [
        ((b"Authorization", b"Bearer tw_sk_a"), b"Bearer " + KEY),
        ((b"AUTHORIZATION", b"token  tw_sk_a"), b"token  " + KEY),
        ((b"Authorization", b"tw_sk_a"), b"Bearer " + KEY),
        ((b"x-Api-Key", b"tw_sk_a"), KEY),
        ((b"api-key", b"Bearer tw_sk_a"), b"Bearer " + KEY),
        ((b"x-goog-api-key", b"tw_sk_"), KEY),
        ((b"Authorization", b"Bearer sk-own"), None),
        ((b"Authorization", b"Bearer tw_sk_a more"), None),
        ((b"Cookie", b"tw_sk_a"), None),
        ((b"X-Else", b"Bearer tw_sk_a"), None),
    ],
)
def test_a_key_of_ours_becomes_the_providers_where_that_would_stand(
    sent: tuple[bytes, bytes], swapped: bytes | None
) -> None:
    around = [(b"A", b"1"), sent, (b"A", b"2")]
    assert headers.has_our_key_for_theirs(around) is (swapped is not None)
    expected = sent if swapped is None else (sent[0], swapped)
    assert headers.with_provider_key(around, KEY) == [around[0], expected, around[2]]


@pytest.mark.parametrize(
    "value",
    [b"Bearer tw_sk_a tw_sk_b", b"Bearer\ttw_sk_a", b"tw_sk_a b", b"a,tw_sk_b "],
)
def test_of_several_keys_of_ours_in_one_header_none_is_overlooked(value: bytes) -> None:
    left = headers.with_provider_key([(b"Authorization", value)], KEY)
    assert headers.holds_our_key(left, b"/")


def test_connection_cannot_take_away_the_header_with_the_key() -> None:
    sent = [(b"Connection", b"close, Authorization ,X-A"), (b"Authorization", b"Bearer tw_sk_a")]
    relayed = headers.end_to_end(headers.with_provider_key([*sent, (b"X-A", b"1")], KEY))
    assert relayed == [(b"Authorization", b"Bearer " + KEY)]


def test_an_edited_body_has_its_own_length_and_asks_for_a_plain_answer() -> None:
    edited = headers.for_edited_body(
        [(b"accept-encoding", b"gzip"), (b"content-length", b"1"), (b"A", b"b")], 12
    )
    assert edited == [(b"content-length", b"12"), (b"A", b"b"), (b"Accept-Encoding", b"identity")]
    assert headers.for_edited_body([], 12) == [(b"Accept-Encoding", b"identity")]


def test_one_header_is_found_by_its_name_in_any_case_the_first_counts() -> None:
    sent = [(b"Content-TYPE", b" Text/HTML ; charset=x"), (b"content-type", b"b")]
    index = headers.index(sent)
    assert index == {b"content-type": b" Text/HTML ; charset=x"}
    assert headers.text(index, b"content-type") == "Text/HTML ; charset=x"
    assert headers.media_type(index) == "text/html"
    assert (headers.text(index, b"accept"), headers.media_type({})) == ("", "")
    assert headers.without(sent, b"content-type") == []


@pytest.mark.parametrize(
    "sent",
    [
        [(b"Authorization", b"Bearer " + KEY)],
        [(b"authorization", b"bearer   " + KEY), (b"api-key", b"another")],
        [(b"Api-Key", KEY)],
        [(b"Authorization", b""), (b"x-api-key", KEY)],
        [(b"x-goog-api-key", KEY), (b"Cookie", b"a=b")],
    ],
)
def test_a_caller_is_its_api_key_wherever_that_stands(sent: list[tuple[bytes, bytes]]) -> None:
    caller = headers.caller(headers.index(sent))
    assert caller == headers.caller({b"authorization": b"Bearer " + KEY})
    assert caller is not None
    assert len(caller) == 8


def test_other_keys_are_other_callers_and_no_key_is_none() -> None:
    assert headers.caller({b"authorization": b"Bearer a"}) != headers.caller({b"api-key": b"b"})
    for index in ({}, {b"authorization": b"Bearer "}, {b"cookie": b"a=b"}):
        assert headers.caller(index) is None


@pytest.mark.parametrize("value", [b"a" * 65_000, b"a " * 32_000, b" " * 65_000])
def test_a_credential_of_64_kib_is_read_in_one_pass(value: bytes) -> None:
    """A search for a scheme at every place took 15 s, and every other call waited."""
    assert cpu_s(lambda: headers.credentials([(b"Authorization", value)], b"")) < 1
    assert cpu_s(lambda: headers.caller({b"authorization": value})) < 1


@pytest.mark.parametrize(
    ("sent", "target", "holds"),
    [
        ([(b"A", b"tw_sk_")], b"/", True),
        ([(b"tw_sk_a", b"")], b"/", True),
        ([], b"/?a=tw_sk_", True),
        ([], b"/?a=tw%5fsk%5Fb", True),
        ([(b"A", b"TW_SK_ tw-sk-")], b"/tw_sk", False),
    ],
)
def test_a_key_of_ours_is_found(
    sent: list[tuple[bytes, bytes]], target: bytes, holds: bool
) -> None:
    assert headers.holds_our_key(sent, target) is holds


def test_credentials_are_known_without_their_scheme_raw_and_decoded() -> None:
    found = headers.credentials(
        [(b"authorization", b"Bearer  " + KEY), (b"X-Api-Key", b"hunter2-hunter2")],
        b"key=abc%2F0123456&other=not-a-secret-0123456789&API_KEY=zzzzzzzz1",
    )
    assert {KEY, b"hunter2-hunter2", b"abc%2F0123456", b"abc/0123456", b"zzzzzzzz1"} <= set(found)
    assert not any(b"not-a-secret" in secret for secret in found)
    assert list(found) == sorted(found, key=len, reverse=True)


@pytest.mark.parametrize("key", [b"ollama", b"anything", b"none", b""])
def test_a_key_that_is_an_ordinary_word_is_not_cut_out_of_texts(key: bytes) -> None:
    assert headers.credentials([(b"Authorization", b"Bearer " + key)], b"") == ()


def test_secrets_are_replaced_in_bodies_queries_and_stored_headers() -> None:
    secrets = (KEY,)
    assert headers.redact(b"a " + KEY + b" b tw_sk_abc-1.", secrets) == (
        b"a [redacted] b [redacted]."
    )
    query = headers.redact_query(b"a=1&k%65y=x&key&token=&b=" + KEY, secrets)
    assert query == b"a=1&k%65y=[redacted]&key&token=[redacted]&b=[redacted]"
    assert headers.redact_query(b"", secrets) == b""
    stored = headers.redacted_json(
        [(b"Cookie", b"session=1"), (b"X-A", b"see " + KEY), (b"X-B", b"\xff\xc3\xa9")], secrets
    )
    assert orjson.loads(stored) == [
        ["Cookie", "[redacted]"],
        ["X-A", "see [redacted]"],
        ["X-B", "\ufffdé"],
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(b"key", b"sig", b"signature", b"token", b"api-key", b"api_key", b"apikey"),
        *(b"subscription-key", b"Ocp-Apim-Subscription-Key", b"x-api-key", b"auth_token"),
        *(b"access_token", b"client_secret", b"X-Amz-Security-Token", b"sub%73cription-key"),
    ],
)
def test_a_parameter_that_is_named_as_a_credential_is_kept_nowhere(name: bytes) -> None:
    query = b"a=1&" + name + b"=abcdefgh-12345678&max_tokens=5"
    assert headers.credentials([], query) == (b"abcdefgh-12345678",)
    assert headers.redact_query(query, ()) == b"a=1&" + name + b"=[redacted]&max_tokens=5"


@pytest.mark.parametrize(
    "name",
    [
        *(b"Helicone-Auth", b"x-portkey-api-key", b"X-Amz-Security-Token", b"cf-aig-authorization"),
        *(b"OPENAI_API_KEY", b"X-Auth-Token", b"apikey", b"client-secret", b"Proxy-Password"),
    ],
)
def test_the_name_of_another_tools_header_tells_that_its_value_is_a_credential(name: bytes) -> None:
    sent = [(name, b"Bearer hunter2-hunter2")]
    assert headers.credentials(sent, b"") == (b"hunter2-hunter2",)
    assert orjson.loads(headers.redacted_json(sent, ())) == [[name.decode(), "[redacted]"]]


@pytest.mark.parametrize(
    "name",
    [
        *(b"x-ratelimit-remaining-tokens", b"Author", b"WWW-Authenticate", b"Idempotency-Key"),
        *(b"Sec-WebSocket-Key", b"X-Authority", b"tokenizer", b"x-max-tokens", b"n" * 65),
    ],
)
def test_other_names_tell_nothing(name: bytes) -> None:
    sent = [(name, b"hunter2-hunter2-hunter2")]
    assert headers.credentials(sent, b"") == ()
    assert b"hunter2" in headers.redacted_json(sent, ()).encode()


def test_user_and_password_are_secrets_each_for_itself() -> None:
    given = base64.b64encode(b"someone:" + KEY)
    for scheme in (b"Basic ", b"basic ", b"BASIC  "):
        assert {KEY, given} <= set(headers.credentials([(b"Authorization", scheme + given)], b""))
    for other in (b"Basic !", b"Basic", b"Basic \xff", b"Bearer " + given):
        assert KEY not in headers.credentials([(b"Authorization", other)], b"")


@pytest.mark.parametrize(
    ("sent", "query", "path"),
    [
        ([(b"baggage", b"user=1,key=%b;p" % KEY)], b"", b"/"),
        ([(b"X-Any", b"it is " + KEY)], b"", b"/"),
        ([], b"q=" + KEY, b"/"),
        ([], b"", b"/v1/%b/x" % KEY),
        ([], b"", b"/v1/" + KEY.replace(b"-", b"%2D")),
    ],
)
def test_what_looks_like_a_key_is_one_wherever_it_stands_in_a_head(
    sent: list[tuple[bytes, bytes]], query: bytes, path: bytes
) -> None:
    assert KEY in headers.credentials(sent, query, path)
    assert KEY[3:] not in headers.redact_path(path, ())


@pytest.mark.parametrize(
    "path", [b"/v1/chat/completions", b"/a%20b", b"/desk-0123456789abcdefghij", b""]
)
def test_other_paths_stay_as_they_are(path: bytes) -> None:
    assert headers.redact_path(path, ()) == path
    assert headers.credentials([], b"", path) == ()


def test_a_short_secret_is_cut_out_of_a_path_too() -> None:
    assert headers.redact_path(b"/v1/abc12345", (b"abc12345",)) == b"/v1/[redacted]"


def test_nothing_that_looks_like_a_key_is_left_in_a_text() -> None:
    for secret in (KEY, b"tw_sk_a", b"tw_si_abc-_", b"tw_st_0", b"ghp_0123456789abcdefghij"):
        assert headers.redact_any(b"it is %b, or so" % secret) == b"it is [redacted], or so"
    plain = b"send it as `Bearer tw_sk_...`, or a tw_sk_ key"
    assert headers.redact_any(plain) == plain


@pytest.mark.parametrize(
    ("value", "swapped"),
    [
        (b"Bearer tw_sk_a", b"Bearer KEY"),
        (b"bearer   tw_sk_a", b"bearer   KEY"),
        (b"tw_sk_atw_sk_b", b"Bearer KEY"),
        (b"Bearer tw_sk_atw_sk_b", b"Bearer KEY"),
        (b"Bearer sk-x", b"Bearer sk-x"),
        (b"Bearer tw_sk_a x", b"Bearer tw_sk_a x"),
    ],
)
def test_the_providers_key_takes_the_place_of_all_of_ours(value: bytes, swapped: bytes) -> None:
    sent = [(b"Authorization", value), (b"X-A", b"tw_sk_a")]
    assert headers.with_provider_key(sent, b"KEY") == [(b"Authorization", swapped), sent[1]]


def test_of_thousands_of_credentials_the_api_key_and_the_longest_are_looked_for() -> None:
    jar = b"; ".join(b"c%d=%b" % (n, b"%04d" % n * (4 + n % 3)) for n in range(3000))
    sent = [(b"Cookie", jar), (b"Authorization", b"Bearer sk-0123456789"), (b"X-A", b"1")]
    secrets = headers.credentials(sent, b"&".join(b"key=q%015d" % n for n in range(3000)))
    assert b"sk-0123456789" in secrets
    assert len(secrets) <= headers.MAX_CREDENTIALS + 1
    assert b"0002" * 6 in headers.credentials([(b"Cookie", jar[:2000])], b"")
    assert b"0000" not in headers.redacted_json(sent, secrets).encode()
