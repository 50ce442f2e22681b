"""How a first call is made, in three languages, with the address of this very server. Pure."""

from dataclasses import dataclass
from string import Template
from typing import Final

_SESSION: Final = "my-first-session"
_CURL: Final = Template("""\
curl $base_url/chat/completions \\
  -H "Authorization: Bearer $$OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -H "X-Traceway-Session-Id: $session" \\
  -d '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello!"}]}'""")
_PYTHON: Final = Template("""\
from openai import OpenAI

client = OpenAI(
    base_url="$base_url",
    default_headers={"X-Traceway-Session-Id": "$session"},
)
answer = client.chat.completions.create(
    model="gpt-4o-mini",
    messages=[{"role": "user", "content": "Hello!"}],
)
print(answer.choices[0].message.content)""")
_JAVASCRIPT: Final = Template("""\
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "$base_url",
  defaultHeaders: { "X-Traceway-Session-Id": "$session" },
});
const answer = await client.chat.completions.create({
  model: "gpt-4o-mini",
  messages: [{ role: "user", content: "Hello!" }],
});
console.log(answer.choices[0].message.content);""")


@dataclass(frozen=True, slots=True)
class Snippet:
    """An example to copy."""

    language: str
    code: str


def snippets(base_url: str) -> list[Snippet]:
    """Write the examples for a base URL, the one for a shell first."""
    languages = {"curl": _CURL, "Python": _PYTHON, "JavaScript": _JAVASCRIPT}
    return [
        Snippet(language, code.substitute(base_url=base_url, session=_SESSION))
        for language, code in languages.items()
    ]
