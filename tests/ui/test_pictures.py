"""Pictures of messages: which ones a browser gets, and as what."""

import base64

import orjson
import pytest

from proxy.ui.pictures import picture
from tests.running import Running
from tests.ui.rich import data_url, png
from tests.ui.story import Story, assistant, user

PNG = png()
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"


def message(*urls: str) -> bytes:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return orjson.dumps(user([{"type": "text", "text": "see"}, *parts]))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0 jpeg", "image/jpeg"),
        (b"GIF89a gif", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_a_raster_image_is_what_its_bytes_say(data: bytes, kind: str) -> None:
    assert picture(message(data_url(data, "text/html")), 0) == (kind, data)


@pytest.mark.parametrize("data", [SVG, b"<html><script>", b"", b"%PDF-1.7", b"BM bitmap"])
def test_nothing_else_is_shown_whatever_it_claims_to_be(data: bytes) -> None:
    assert picture(message(data_url(data)), 0) is None


def test_pictures_are_counted_with_those_that_are_elsewhere() -> None:
    found = message("https://example.com/a.png", data_url(PNG), "data:image/png;base64,!")
    assert [picture(found, n) is not None for n in range(4)] == [False, True, False, False]


def test_a_picture_that_a_model_made_is_one() -> None:
    item = {"type": "image_generation_call", "id": "i", "result": base64.b64encode(PNG).decode()}
    assert picture(orjson.dumps(item), 0) == ("image/png", PNG)


@pytest.mark.asyncio(loop_scope="session")
async def test_it_is_served_so_that_it_can_be_nothing_but_a_picture(tw: Running) -> None:
    story = Story(tw)
    urls = orjson.loads(message(data_url(PNG), data_url(SVG, "image/svg+xml")))
    await story.turn(urls, assistant("nice"))
    await tw.saved()
    (first, _) = (await tw.api("/api/sessions/story/conversation"))["messages"]
    async with tw.client.get(f"{tw.url}/pictures/{first['id']}/0") as answer:
        assert (answer.status, await answer.read()) == (200, PNG)
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    for path in (f"{first['id']}/1", f"{first['id']}/9", "x/0", "00000000000000ff-1/0"):
        async with tw.client.get(f"{tw.url}/pictures/{path}") as answer:
            assert answer.status == 404
