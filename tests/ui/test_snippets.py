"""The examples of a first call."""

import ast
import json
import shlex

from proxy.ui.snippets import snippets

BASE_URL = "http://localhost:3000/api/proxy/openai/v1"


def code(language: str) -> str:
    (found,) = [one.code for one in snippets(BASE_URL) if one.language == language]
    return found


def test_the_shell_gets_one_command_with_valid_json() -> None:
    words = shlex.split(code("curl").replace("\\\n", ""))
    assert words[:2] == ["curl", f"{BASE_URL}/chat/completions"]
    assert json.loads(words[-1])["messages"] == [{"role": "user", "content": "Hello!"}]
    assert "Authorization: Bearer $OPENAI_API_KEY" in words
    assert "X-Traceway-Session-Id: my-first-session" in words


def test_the_python_example_is_python() -> None:
    tree = ast.parse(code("Python"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {BASE_URL, "X-Traceway-Session-Id", "my-first-session"} <= texts


def test_the_javascript_example_has_the_address_and_the_session() -> None:
    assert f'baseURL: "{BASE_URL}"' in code("JavaScript")
    assert '"X-Traceway-Session-Id": "my-first-session"' in code("JavaScript")
