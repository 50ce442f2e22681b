"""The strict reader: what is clean it reads, and nothing else passes it."""

import pytest

from tests.differential.strict import End, read

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        HEAD + b"Content-Length: +1\r\n\r\na",
        HEAD + b"Content-Length : 1\r\n\r\na",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"X: 1\r\n folded\r\n\r\n",
        HEAD + b"X: 1\rY: 2\r\n\r\n",
        HEAD + b"X: 1\nY: 2\r\n\r\n",
        HEAD + b"X: \0\r\n\r\n",
        HEAD + b"Host: b\r\n\r\n",
        HEAD.replace(b"Host: a\r\n", b"X: 1\r\n") + b"\r\n",
        HEAD.replace(b" /x", b" http://a/x") + b"\r\n",
        HEAD.replace(b" /x", b"  /x") + b"\r\n",
        HEAD.replace(b"1.1", b"2.0") + b"\r\n",
        HEAD.replace(b"\r\n", b"\n") + b"\n",
        *(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
            for chunks in (b"0x1\r\na\r\n", b"1\na\r\n", b"1\r\nab\r\n", b" 1\r\na\r\n", b"\r\n")
        ),
    ],
)
def test_an_unclean_request_is_a_problem(data: bytes) -> None:
    reading = read(data, "requests", "open")
    assert reading.problem is not None
    assert not any(message.whole for message in reading.messages)


def test_requests_in_a_row_are_read_one_by_one() -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nX: 1\r\n\r\n"
    reading = read(chunked + HEAD + b"Content-Length: 2\r\n\r\nyoGET ", "requests", "open")
    assert reading.problem is None
    assert [message.body for message in reading.messages] == [b"hi", b"yo"]
    assert reading.messages[0].trailers == [(b"X", b"1")]
    assert reading.rest == b"GET "


@pytest.mark.parametrize(
    ("data", "end", "whole"),
    [
        (OK + b"\r\nhi", "closed", True),
        (OK + b"\r\nhi", "reset", False),
        (OK + b"Content-Length: 3\r\n\r\nhi", "closed", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", "closed", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "open", True),
    ],
)
def test_an_answer_is_whole_only_by_its_framing_or_a_proper_end(
    data: bytes, end: End, whole: bool
) -> None:
    (message,) = read(data, "answers", end).messages
    assert (message.whole, message.body) == (whole, b"hi")


def test_an_answer_to_head_has_no_body_and_interim_answers_stand_apart() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    data = interim + OK + b"Content-Length: 9\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"
    reading = read(data, "answers", "open", [b"HEAD", b"GET"])
    assert [message.whole for message in reading.messages] == [True, True]
    assert len(reading.interim) == 1
