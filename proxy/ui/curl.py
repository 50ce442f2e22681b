"""A recorded call as a command that makes it again, without the key with which it was made. Pure.

Invariant: pasted into a shell it does nothing but run curl: every text of strangers is one quoted
word, and no control character of theirs reaches the terminal.
"""

import re
from shlex import quote
from typing import Final

# What a terminal may obey, even while a shell only reads it.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


_THEIRS: Final = '-H "Authorization: Bearer $OPENAI_API_KEY"'
_OURS: Final = '-H "Authorization: Bearer $TRACEWAY_API_KEY"'


def command(
    method: str,
    url: str,
    content_type: str | None,
    body: bytes | None,
    body_url: str,
    *,
    keys_are_on: bool,
) -> str:
    """Write the command; a body that cannot be pasted is fetched from ``body_url``.

    With keys on both take a key of ours from the environment, and the call goes out with the
    provider key of the project.
    """
    words = [f"curl {quote(_plain(url))}", f"-X {quote(_plain(method))}"]
    words.append(_OURS if keys_are_on else _THEIRS)
    if content_type:
        words.append(f"-H {quote('Content-Type: ' + _plain(content_type))}")
    before = ""
    if body:
        text = _text(body)
        own = f"{_OURS} " if keys_are_on else ""
        before = "" if text is not None else f"curl -s {own}{quote(_plain(body_url))} | "
        words.append(f"--data-binary {'@-' if text is None else quote(text)}")
    return before + " \\\n  ".join(words) + "\n"


def _plain(text: str) -> str:
    return _CONTROLS.sub("", text.replace("\n", ""))


def _text(body: bytes) -> str | None:
    """Give a body as text; None where it cannot be pasted. A first @ has a meaning for curl."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if text.startswith("@") or _CONTROLS.search(text) else text
