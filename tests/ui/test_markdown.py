"""Markdown as a tree: what each mark means, what stays text, and that nothing is lost or slow."""

from collections.abc import Iterable, Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.ui.markdown import (
    MAX_EMPHASIS,
    MAX_LISTS,
    Block,
    Code,
    Emphasis,
    Fence,
    Inline,
    Item,
    Link,
    Listing,
    Paragraph,
    Rule,
    Text,
    parse,
)
from tests.timing import cpu_s


def inline(text: str) -> tuple[Inline, ...]:
    (block,) = parse(text)
    assert isinstance(block, Paragraph)
    return block.children


def words(nodes: Iterable[Block | Inline]) -> Iterator[str]:
    """Give all text of a tree, in order."""
    for node in nodes:
        if isinstance(node, Text | Code):
            yield node.text
        elif isinstance(node, Fence):
            yield from (node.info, node.text)
        elif isinstance(node, Listing):
            for item in node.items:
                yield "" if item.number is None else str(item.number)
                yield from words(item.blocks)
        elif isinstance(node, Emphasis | Paragraph):
            yield from words(node.children)
        elif isinstance(node, Link):
            label = "".join(words(node.children))
            yield label if label == node.href else label + node.href


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def depth(nodes: Iterable[Block | Inline]) -> int:
    inner = [0]
    for node in nodes:
        if isinstance(node, Listing):
            inner += [1 + depth(item.blocks) for item in node.items]
        elif isinstance(node, Emphasis | Paragraph | Link):
            inner.append(1 + depth(node.children))
    return max(inner)


def p(text: str) -> tuple[Paragraph]:
    return (Paragraph((Text(text),)),)


def test_plain_text_is_paragraphs_with_their_lines() -> None:
    assert parse("one\n two\n\n\nthree") == (*p("one\n two"), *p("three"))
    assert parse("") == parse(" \n\t") == ()


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("*a* b", (Emphasis(False, (Text("a"),)), Text(" b"))),
        ("__a__", (Emphasis(True, (Text("a"),)),)),
        ("***a***", (Emphasis(True, (Emphasis(False, (Text("a"),)),)),)),
        ("**a *b* c**", (Emphasis(True, (Text("a "), Emphasis(False, (Text("b"),)), Text(" c"))),)),
        ("**a *b**", (Emphasis(True, (Text("a *b"),)),)),
        ("**a", (Text("**a"),)),
        ("2 * 3 * 4", (Text("2 * 3 * 4"),)),
        ("snake_case_name", (Text("snake_case_name"),)),
        ("**** a ****", (Text("**** a ****"),)),
        (r"\*a\* \[x\] \(y\)", (Text(r"*a* \[x\] \(y\)"),)),
        ("a `*b*` c", (Text("a "), Code("*b*"), Text(" c"))),
        ("`` ` ``", (Code("`"),)),
        ("``a`", (Text("``a`"),)),
    ],
)
def test_emphasis_and_code_need_both_their_halves(text: str, nodes: tuple[Inline, ...]) -> None:
    assert inline(text) == nodes


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("[a b](https://x.y/z)", (Link("https://x.y/z", (Text("a b"),)),)),
        ("[](http://x)", (Link("http://x", (Text("http://x"),)),)),
        ("see https://x.y/a_(b), ok", (Text("see "), *inline("https://x.y/a_(b)"), Text(", ok"))),
        ("(http://x)", (Text("("), Link("http://x", (Text("http://x"),)), Text(")"))),
        ("[a](javascript:alert(1))", (Text("[a](javascript:alert(1))"),)),
        ("[a](data:text/html,x)", (Text("[a](data:text/html,x)"),)),
        ("[a](//x.y)", (Text("[a](//x.y)"),)),
        ("http://...", (Text("http://..."),)),
        ("<b>a</b> &lt;", (Text("<b>a</b> &lt;"),)),
    ],
)
def test_only_http_and_https_are_links(text: str, nodes: tuple[Inline, ...]) -> None:
    assert inline(text) == nodes


def test_a_picture_is_a_link_to_it_and_nothing_is_loaded() -> None:
    assert inline("![a](https://x/y.png)") == (Text("!"), Link("https://x/y.png", (Text("a"),)))


def test_fences_keep_their_lines_as_they_are() -> None:
    assert parse("a\n```py x\n*b*\n\n  c\n```\nd") == (
        *p("a"),
        Fence("py x", "*b*\n\n  c"),
        *p("d"),
    )
    assert parse("~~~\n```\n~~~") == (Fence("", "```"),)
    assert parse("````\n```\n````") == (Fence("", "```"),)
    assert parse("```\n\tmake\nnot closed") == (Fence("", "\tmake\nnot closed"),)


def test_headings_are_paragraphs_that_stand_out() -> None:
    assert parse("## a *b*\nc") == (
        Paragraph((Text("a "), Emphasis(False, (Text("b"),))), heading=True),
        *p("c"),
    )
    assert parse("#no") == p("#no")


def test_a_table_stays_as_it_was_written() -> None:
    assert parse("| a | b |\n|---|---|\n| 1 | 2 |") == (
        Fence("", "| a | b |\n|---|---|\n| 1 | 2 |"),
    )


def test_three_marks_are_a_line() -> None:
    assert parse("a\n\n---\n* * *") == (*p("a"), Rule(), Rule())


def test_lists_have_items_with_their_own_numbers() -> None:
    assert parse("- a\n- b") == (Listing(False, (Item(None, p("a")), Item(None, p("b")))),)
    assert parse("3. a\n\n7) b") == (Listing(True, (Item(3, p("a")), Item(7, p("b")))),)
    assert parse("- a\n1. b") == (
        Listing(False, (Item(None, p("a")),)),
        Listing(True, (Item(1, p("b")),)),
    )
    assert parse("007. a") == p("007. a")


def test_what_is_indented_belongs_to_its_item() -> None:
    (listing,) = parse("1. a\n   - b\n     c\n\n   ```\n   x\n   ```\n2. d")
    assert listing == Listing(
        True,
        (
            Item(1, (*p("a"), Listing(False, (Item(None, p("b\nc")),)), Fence("", "x"))),
            Item(2, p("d")),
        ),
    )
    assert parse("- a\nb\n\nc") == (Listing(False, (Item(None, p("a\nb")),)), *p("c"))


@settings(deadline=None)
@given(st.text(alphabet="ab1 \n\t*_`[]()#-+.|~>\\!éI\r", max_size=200))
def test_no_letter_is_lost_or_moved(text: str) -> None:
    assert letters("".join(words(parse(text)))) == letters(text)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["http://a", "[b](", "](", ")", "**", "`", "\n", "c", "(", " - "])))
def test_no_letter_is_lost_among_links(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert letters("".join(words(parse(text)))) == letters(text)


@settings(deadline=None)
@given(st.text())
def test_every_text_is_read_and_its_links_are_safe(text: str) -> None:
    def links(nodes: Iterable[Block | Inline]) -> Iterator[Link]:
        for node in nodes:
            if isinstance(node, Link):
                yield node
            elif isinstance(node, Paragraph | Emphasis):
                yield from links(node.children)

    for link in links(parse(f"[a](http:{text}) {text}")):
        assert link.href.lower().startswith(("http://", "https://"))


HOSTILE = [
    *("*", "_", "`", "[", "]", "(", "- ", "-\n", "\n", "\t", "> ", "|", "#", "\\", "~"),
    *("*a ", "**a *b ", "`a``b", "[a](", "[a](http://", "https://(", "https://a.", "http://a(b"),
    *("- a\n  ", "1. a\n", "```\n", "```a`\n", "a\n\n", " \n", "*a*_b_", "\r\n", "| \n", "__a*b_ "),
]


def test_the_time_is_linear_in_the_length_of_hostile_text() -> None:
    # What is quadratic takes many times the bound, and what is linear a twentieth of it.
    for piece in HOSTILE:
        text = piece * (40_000 // len(piece))
        assert cpu_s(partial(parse, text)) < 1, piece


@pytest.mark.parametrize("piece", ["*a ", "**a *b _c __d ", "[a](http://x "])
def test_emphasis_is_no_deeper_than_its_bound(piece: str) -> None:
    assert depth(parse(piece * 1000 + "a* b** " * 1000)) <= 1 + MAX_EMPHASIS


def test_lists_are_no_deeper_than_their_bound() -> None:
    text = "\n".join("  " * n + f"- {n}" for n in range(100))
    tree = parse(text)
    assert depth(tree) == MAX_LISTS + 1
    assert letters("".join(words(tree))) == letters(text)
