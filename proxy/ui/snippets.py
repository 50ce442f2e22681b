"""How a first call is made, in three languages, with the address of this very server. Pure.

Invariant: the examples are the same on every page, so no key is in them; they take it from the
environment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Final

from storage.grants import Scope

_SESSION: Final = "my-first-session"
_OUR_KEY: Final = "TRACEWAY_API_KEY"
_CURL: Final = Template("""\
curl $base_url/chat/completions \\
  -H "Authorization: Bearer $$$key_of" \\$curl_header
  -H "Content-Type: application/json" \\
  -H "X-Traceway-Session-Id: $session" \\
  -d '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello!"}]}'""")
_PYTHON: Final = Template("""\
${python_import}from openai import OpenAI

client = OpenAI(
    base_url="$base_url",$python_key
    default_headers={
        "X-Traceway-Session-Id": "$session",$python_header
    },
)
answer = client.chat.completions.create(
    model="gpt-4o-mini",
    messages=[{"role": "user", "content": "Hello!"}],
)
print(answer.choices[0].message.content)""")
_JAVASCRIPT: Final = Template("""\
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "$base_url",$javascript_key
  defaultHeaders: {
    "X-Traceway-Session-Id": "$session",$javascript_header
  },
});
const answer = await client.chat.completions.create({
  model: "gpt-4o-mini",
  messages: [{ role: "user", content: "Hello!" }],
});
console.log(answer.choices[0].message.content);""")
_LANGUAGES: Final = {"curl": _CURL, "Python": _PYTHON, "JavaScript": _JAVASCRIPT}
# What the three leave open. A client takes the provider's key from the environment by itself.
_NOTHING: Final = {
    "key_of": "OPENAI_API_KEY",
    "curl_header": "",
    "python_import": "",
    "python_key": "",
    "python_header": "",
    "javascript_key": "",
    "javascript_header": "",
}
_INSTEAD: Final = {
    **_NOTHING,
    "key_of": _OUR_KEY,
    "python_import": "import os\n\n",
    "python_key": f'\n    api_key=os.environ["{_OUR_KEY}"],',
    "javascript_key": f"\n  apiKey: process.env.{_OUR_KEY},",
}
_BESIDE: Final = {
    **_NOTHING,
    "curl_header": f'\n  -H "X-Traceway-Api-Key: ${_OUR_KEY}" \\',
    "python_import": "import os\n\n",
    "python_header": f'\n        "X-Traceway-Api-Key": os.environ["{_OUR_KEY}"],',
    "javascript_header": f'\n    "X-Traceway-Api-Key": process.env.{_OUR_KEY},',
}


@dataclass(frozen=True, slots=True)
class Snippet:
    """An example to copy."""

    language: str
    code: str


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make a call: what it takes, and its examples, the one for a shell first."""

    title: str
    text: str
    snippets: Sequence[Snippet]


def ways(base_url: str, *, keys_are_on: bool) -> list[Way]:
    """Write the examples for a base URL: one way without keys, and two with them."""
    if not keys_are_on:
        text = "Your key passes through and is not stored."
        return [Way("Example", text, _snippets(base_url, _NOTHING))]
    return [
        Way(
            "With the project's provider key",
            f"{_OUR_KEY} is a key of this server (tw_sk_…) of scope write. It goes where the"
            " provider's key would, and calls go out with the key that the project has for the"
            " provider.",
            _snippets(base_url, _INSTEAD),
        ),
        Way(
            "With your own provider key",
            f"It passes through and is not stored; {_OUR_KEY} stands beside it.",
            _snippets(base_url, _BESIDE),
        ),
    ]


def _snippets(base_url: str, parts: dict[str, str]) -> list[Snippet]:
    return [
        Snippet(language, code.substitute(parts, base_url=base_url, session=_SESSION))
        for language, code in _LANGUAGES.items()
    ]


def lines_for(origin: str, key: str, scope: Scope) -> str:
    """Write the two lines that give a key which was just made to a client, for its maker alone."""
    if scope == "read":
        return f"export {_OUR_KEY}={key}\ntraceway sessions --url {origin}"
    return f"export OPENAI_BASE_URL={origin}/api/proxy/openai/v1\nexport OPENAI_API_KEY={key}"
