"""The text fields of a multipart form, which carry the model of an image edit or a transcription.

Invariant: files are stepped over, never copied, and a body may be cut anywhere: a field counts
only when its end is there. Source: RFC 7578 and RFC 2046, section 5.1.
"""

import re
from typing import Final

# Parts that are looked at. Werkzeug's default is the same; OpenAI's forms have about twenty.
_MAX_PARTS: Final = 1000
# Bytes of one text field. A transcription's prompt has 224 tokens, an image's 32,000 characters.
_FIELD_BYTES: Final = 131_072
# Bytes of one part's headers; they hold a name, a file name and a type.
_HEADER_BYTES: Final = 8192

_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_NAME: Final = re.compile(rb';\s*name="?([^";\r\n]{1,100})', re.IGNORECASE)
_FILE: Final = re.compile(rb";\s*filename\*?=", re.IGNORECASE)


def form_fields(body: bytes, content_type: str) -> dict[str, str]:
    """Return the text fields by name, the first of each; none where it is not such a form."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or not found:
        return {}
    delimiter = b"--" + (found[1] or found[2]).encode("utf-8", "replace")
    fields: dict[str, str] = {}
    start = body.find(delimiter)
    for _ in range(_MAX_PARTS):
        if start < 0:
            break
        start += len(delimiter)
        if body.startswith(b"--", start):
            break  # what follows the closing delimiter belongs to nobody
        headers_end = body.find(b"\r\n\r\n", start, start + _HEADER_BYTES)
        end = body.find(b"\r\n" + delimiter, start)
        if headers_end < 0 or end < headers_end:
            break
        headers, value = body[start:headers_end], body[headers_end + 4 : end][:_FIELD_BYTES]
        if (field := _NAME.search(headers)) and not _FILE.search(headers):
            fields.setdefault(field[1].decode("utf-8", "replace"), value.decode("utf-8", "replace"))
        start = end + 2
    return fields
