"""The text fields of a form: what is one, and that files are stepped over in one pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.multipart import form_fields

FORM = 'multipart/form-data; charset=utf-8; boundary="x y"'
END = b"--x y--\r\n"


class Watched(bytes):
    """Bytes that count how many of them are searched or copied."""

    looked_at = 0

    def find(self, part, start=0, end=None):  # type: ignore[no-untyped-def]
        end = len(self) if end is None else min(end, len(self))
        at = super().find(part, start, end)
        self.looked_at += (end if at < 0 else at + len(part)) - start
        return at

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        part = super().__getitem__(key)
        self.looked_at += len(part)
        return part


def part(header: str, value: bytes) -> bytes:
    disposition = f"Content-Disposition: form-data; {header}".encode()
    return b"--x y\r\n%b\r\n\r\n%b\r\n" % (disposition, value)


def test_text_fields_are_given_by_name_and_files_are_not() -> None:
    body = (
        part('name="model"', b"gpt-image-1")
        + part('name="image"; filename="a.png"', b'PNG\r\n\r\nname="prompt"\r\n--x\r\n')
        + part("NAME=prompt", "Füge\nan".encode())
        + part('name="stream"\r\nContent-Type: text/plain', b"")
    )
    expected = {"model": "gpt-image-1", "prompt": "Füge\nan", "stream": ""}
    assert form_fields(body + END, FORM) == expected
    assert form_fields(b"a preamble\r\n" + body + END + b"an epilogue", FORM) == expected


@pytest.mark.parametrize("file", ['filename="model"', "filename*=UTF-8''model", "FileName=m"])
def test_a_file_that_is_called_like_a_field_is_not_that_field(file: str) -> None:
    assert form_fields(part(f'name="model"; {file}', b"evil") + END, FORM) == {}


def test_of_a_field_that_is_sent_twice_the_first_counts() -> None:
    body = part("name=model", b"first") + part("name=model", b"second") + END
    assert form_fields(body, FORM) == {"model": "first"}


def test_a_delimiter_inside_a_line_belongs_to_the_value() -> None:
    body = part("name=prompt", b"a --x y b\n--x y\r\n--x") + part("name=model", b"m") + END
    assert form_fields(body, FORM) == {"prompt": "a --x y b\n--x y\r\n--x", "model": "m"}


def test_what_follows_the_closing_delimiter_is_no_field() -> None:
    body = part("name=model", b"m") + END + b"\r\n" + part("name=user", b"u") + END
    assert form_fields(body, FORM) == {"model": "m"}


def test_a_form_that_was_cut_gives_only_whole_fields() -> None:
    first, second = part("name=model", b"whisper-1"), part("name=prompt", b"A long talk")
    body = first + second + END
    for end in range(len(body) + 1):
        expected = {}
        if end >= len(first) + len(b"--x y"):
            expected["model"] = "whisper-1"
        if end >= len(first) + len(second) + len(b"--x y"):
            expected["prompt"] = "A long talk"
        assert form_fields(body[:end], FORM) == expected


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=x",
        'MULTIPART/FORM-DATA;BOUNDARY="x"',
        "multipart/form-data; charset=utf-8;  boundary=x; a=b",
    ],
)
def test_the_boundary_is_that_of_the_content_type(content_type: str) -> None:
    body = b"--x\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--x--"
    assert form_fields(body, content_type) == {"model": "m"}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 201,
        "multipart/form-data; boundary=y",
        "multipart/mixed; boundary=x",
        "application/json; boundary=x",
    ],
)
def test_what_is_no_such_form_has_no_fields(content_type: str) -> None:
    body = b"--x\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--x--"
    assert form_fields(body, content_type) == {}


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        (b"", {}),
        (b"Content-Disposition: form-data", {}),
        (b'Content-Disposition: form-data; name=""', {}),
        (b"Content-Disposition: form-data; name=a\xff", {"a\ufffd": "v"}),
        (b"X: %b\r\nContent-Disposition: form-data; name=a" % (b"x" * 9000), {}),
    ],
)
def test_odd_headers_of_a_part_are_survived(headers: bytes, fields: dict[str, str]) -> None:
    assert form_fields(b"--x y\r\n%b\r\n\r\nv\r\n" % headers + END, FORM) == fields


def test_a_field_is_read_to_a_bound() -> None:
    fields = form_fields(part("name=prompt", b"x" * 200_000) + END, FORM)
    assert fields == {"prompt": "x" * 131_072}


def test_a_flood_of_parts_is_read_to_a_bound() -> None:
    body = b"".join(part(f"name=a{n}", b"") for n in range(1200))
    assert list(form_fields(body + END, FORM)) == [f"a{n}" for n in range(1000)]


@pytest.mark.parametrize(
    "piece",
    [
        b"--x y",
        b"--x y\r\n",
        b"\r\n--x y",
        b"\r\n--x y\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n--x ",
        b"-",
        part("name=a; filename=b", b"x" * 1000),
        part("name=a", b""),
    ],
)
def test_a_hostile_form_is_gone_through_once(piece: bytes) -> None:
    body = Watched(b"--x y\r\n\r\n" + piece * (300_000 // len(piece)))
    form_fields(body, FORM)
    # Once for the end of each part, once for the end of its headers, once for what is kept.
    assert 0 < body.looked_at <= 3 * len(body) + 8192


names = st.text(st.characters(codec="utf-8", exclude_characters='";\r\n\x00'), min_size=1).filter(
    lambda name: len(name.encode()) <= 100 and name == name.strip()
)


@given(st.dictionaries(names, st.text()))
def test_the_fields_of_any_form_come_back(fields: dict[str, str]) -> None:
    body = b"".join(part(f'name="{name}"', text.encode()) for name, text in fields.items())
    assert form_fields(body + END, FORM) == fields


pieces = st.sampled_from([b"--x", b"--x--", b"\r\n", b"\r\n\r\n", b"; name=", b'"', b"; filename="])


@given(
    st.lists(pieces | st.binary(max_size=5)).map(b"".join),
    st.sampled_from([FORM, "multipart/form-data; boundary=x", "multipart/form-data;\0"])
    | st.text(max_size=20).map("multipart/form-data; boundary=".__add__),
)
def test_no_bytes_make_it_raise(body: bytes, content_type: str) -> None:
    for text in form_fields(body, content_type).values():
        text.encode()
