"""What the package promises as a whole: no dependencies, an old Python, files that one reads."""

import ast
import sys
import tomllib
from pathlib import Path

import traceway

SDK = Path(__file__).parents[2] / "sdk" / "python"
SOURCES = sorted((SDK / "src" / "traceway").glob("*.py"))
PROJECT = tomllib.loads((SDK / "pyproject.toml").read_text())["project"]


def test_it_imports_the_standard_library_and_itself_alone() -> None:
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).partition(".")[0])
    assert found - sys.stdlib_module_names == {"traceway"}
    assert PROJECT["dependencies"] == []


def test_python_3_10_can_read_it() -> None:
    assert PROJECT["requires-python"] == ">=3.10"
    for source in SOURCES:
        ast.parse(source.read_text(), feature_version=(3, 10))


def test_it_says_its_version_and_ships_its_types() -> None:
    assert traceway.__version__ == PROJECT["version"]
    assert (SDK / "src" / "traceway" / "py.typed").is_file()


def test_each_file_says_what_it_owns_and_is_read_in_one_go() -> None:
    for source in SOURCES:
        text = source.read_text()
        assert ast.get_docstring(ast.parse(text)), source
        assert len(text.splitlines()) <= 400, source
