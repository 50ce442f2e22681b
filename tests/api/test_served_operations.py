"""What goes through the proxy is described with every header of ours."""

import re
from pathlib import Path

import pytest

from proxy.api.served_operations import PROXY_HEADERS, PROXY_MARKS
from proxy.capture import parse_capture

ROOT = Path(__file__).parents[2]
SOURCE = "".join(path.read_text() for path in (ROOT / "proxy").glob("*.py"))


def test_each_header_of_ours_in_the_data_plane_is_described() -> None:
    known = {parameter.name.lower() for parameter in PROXY_HEADERS}
    known |= {name.lower() for name in PROXY_MARKS}
    # In what all operations have: the ways to say who one is, in which project, and the errors.
    known |= {"x-traceway-api-key", "x-traceway-project", "x-traceway-error"}
    found = {name.lower() for name in re.findall(r"X-Traceway-[A-Za-z-]*[A-Za-z]", SOURCE)}
    found |= set(re.findall(r"x-traceway-[a-z-]*[a-z]", SOURCE))
    assert found == known


@pytest.mark.parametrize(
    "text", ["full", "off", "preview", "preview(10)", "none", "preview()", "preview(1234567890)"]
)
def test_a_capture_is_what_the_server_reads_as_one(text: str) -> None:
    (schema,) = [one.schema for one in PROXY_HEADERS if one.name == "X-Traceway-Capture"]
    found = re.search(str(schema["pattern"]), text) is not None
    assert found == (parse_capture(text) is not None)
