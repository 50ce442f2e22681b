"""The examples of a first call."""

import ast
import json
import re
import shlex

import pytest

from proxy.ui.snippets import lines_for, ways
from storage.grants import SCOPES, Scope

BASE_URL = "http://localhost:3000/api/proxy/openai/v1"
KEY = "tw_sk_" + "a-_Z" * 10 + "abc"
OURS = "TRACEWAY_API_KEY"
# Without keys; in place of the provider's key; beside it.
WAYS = [ways(BASE_URL, keys_are_on=False)[0], *ways(BASE_URL, keys_are_on=True)]


def code(language: str, way: int = 0) -> str:
    (found,) = [one.code for one in WAYS[way].snippets if one.language == language]
    return found


@pytest.mark.parametrize("way", [0, 1, 2])
def test_the_shell_gets_one_command_with_valid_json(way: int) -> None:
    words = shlex.split(code("curl", way).replace("\\\n", ""))
    assert words[:2] == ["curl", f"{BASE_URL}/chat/completions"]
    assert json.loads(words[-1])["messages"] == [{"role": "user", "content": "Hello!"}]
    assert "X-Traceway-Session-Id: my-first-session" in words
    keys = [word for word in words if "_KEY" in word]
    assert (
        keys
        == [
            ["Authorization: Bearer $OPENAI_API_KEY"],
            ["Authorization: Bearer $TRACEWAY_API_KEY"],
            ["Authorization: Bearer $OPENAI_API_KEY", "X-Traceway-Api-Key: $TRACEWAY_API_KEY"],
        ][way]
    )


@pytest.mark.parametrize("way", [0, 1, 2])
def test_the_python_example_is_python(way: int) -> None:
    tree = ast.parse(code("Python", way))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {BASE_URL, "X-Traceway-Session-Id", "my-first-session"} <= texts
    (client,) = [
        {one.arg: ast.unparse(one.value) for one in node.keywords}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "OpenAI"
    ]
    ours = f"os.environ['{OURS}']"
    assert client.get("api_key") == (ours if way == 1 else None)
    assert (f"'X-Traceway-Api-Key': {ours}" in client["default_headers"]) == (way == 2)
    assert code("Python", way).startswith("import os\n") == (way > 0)


@pytest.mark.parametrize("way", [0, 1, 2])
def test_the_javascript_example_has_the_address_and_the_session(way: int) -> None:
    text = code("JavaScript", way)
    assert f'baseURL: "{BASE_URL}"' in text
    assert '"X-Traceway-Session-Id": "my-first-session"' in text
    assert (f"  apiKey: process.env.{OURS}," in text) == (way == 1)
    assert (f'"X-Traceway-Api-Key": process.env.{OURS},' in text) == (way == 2)


def test_no_example_has_a_key_and_every_one_says_where_it_goes() -> None:
    assert not re.search(r"tw_sk_\w", repr(WAYS))
    assert WAYS[0].text == "Your key passes through and is not stored."
    assert "tw_sk_…" in WAYS[1].text


@pytest.mark.parametrize("scope", SCOPES)
def test_a_new_keys_two_lines_are_a_shells(scope: Scope) -> None:
    words = [shlex.split(line) for line in lines_for("http://h:3000", KEY, scope).split("\n")]
    if scope == "read":
        assert words == [
            ["export", f"TRACEWAY_API_KEY={KEY}"],
            ["traceway", "sessions", "--url", "http://h:3000"],
        ]
    else:
        assert words == [
            ["export", "OPENAI_BASE_URL=http://h:3000/api/proxy/openai/v1"],
            ["export", f"OPENAI_API_KEY={KEY}"],
        ]
