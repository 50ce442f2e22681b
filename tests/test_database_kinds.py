"""Which tests run on one kind of database only, and why: docs/testing.md lists them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
KINDS = ("sqlite_only", "postgres_only")


def marked(file: Path) -> Iterator[tuple[str, str, str]]:
    """Give the tests of a file that have a mark: its kind, their name or the file's, the reason."""
    tree = ast.parse(file.read_text("utf-8"))
    name = str(file.relative_to(ROOT))
    for node in tree.body:
        if isinstance(node, ast.Assign):
            # Of all tests of the file, or of those that have it by this name.
            whole = any(
                isinstance(one, ast.Name) and one.id == "pytestmark" for one in node.targets
            )
            marks, where = [node.value], name if whole else f"{name} (in part)"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks, where = node.decorator_list, f"{name}: {node.name}"
        else:
            continue
        for mark in marks:
            if isinstance(mark, ast.Call) and (kind := ast.unparse(mark.func)[12:]) in KINDS:
                yield kind, where, ast.literal_eval(mark.args[0])


def listed() -> str:
    """Write the lists as they stand in the document."""
    found: dict[str, dict[str, list[str]]] = {kind: {} for kind in KINDS}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for kind, where, reason in marked(file):
            found[kind].setdefault(reason, []).append(where)
    lines = []
    for kind, title in zip(KINDS, ("SQLite", "PostgreSQL"), strict=True):
        lines += [f"### Only on {title}", ""]
        for reason, tests in sorted(found[kind].items()):
            lines += [f"- {reason}:", *(f"  - `{one}`" for one in tests)]
        lines.append("")
    return "\n".join(lines)


def test_what_runs_on_one_kind_of_database_only_is_listed_with_its_reason() -> None:
    document = (ROOT / "docs/testing.md").read_text("utf-8")
    _, _, lists = document.partition("<!-- tests/test_database_kinds.py writes this -->\n\n")
    assert lists == listed()


if __name__ == "__main__":
    text = (ROOT / "docs/testing.md").read_text("utf-8")
    mark = "<!-- tests/test_database_kinds.py writes this -->\n\n"
    (ROOT / "docs/testing.md").write_text(text.partition(mark)[0] + mark + listed(), "utf-8")
