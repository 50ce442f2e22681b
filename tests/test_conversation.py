"""Conversations out of bytes: a chain that is the same however much of it was known before."""

import hashlib
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import conversation, prefixes, slices
from proxy.conversation import Conversations, Question, conversation_of
from proxy.prefixes import Owner
from proxy.providers.messages import read_message, text_of
from proxy.providers.openai import operation_of
from proxy.slices import Slice
from storage.chain import BEGINNING, MAX_POINTS, Conversation, extend, node_hash
from tests import shaped
from tests.shaped import filled

CHAT = operation_of("POST", "/v1/chat/completions")
RESPONSES = operation_of("POST", "/v1/responses")
OWNER = Owner(1, b"caller", "", CHAT)
AGENT = Owner(1, b"caller", "", RESPONSES)
SECRET = b"sk-canary-0123456789"


def user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, object]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, object]:
    return {"role": "system", "content": text}


def chat(*messages: object, **fields: object) -> bytes:
    return orjson.dumps({"messages": messages, "model": "gpt-5.1", **fields})


def asked(
    body: bytes,
    known: Conversations | None = None,
    owner: Owner = OWNER,
    secrets: Sequence[bytes] = (),
) -> Question:
    """Read a request; with `known`, behind what it gave before."""
    question = (known or Conversations()).question(owner, body, secrets)
    assert question is not None
    return question


def meaning(*messages: object) -> bytes:
    """Give the meaning of a conversation of these."""
    end = BEGINNING
    for message in messages:
        end = extend(end, read_message(orjson.dumps(message)).meaning)
    return end


def answer(
    known: Conversations, question: Question, *messages: object, is_whole: bool = True
) -> Conversation:
    pieces = [Slice(b"", orjson.dumps(message)) for message in messages]
    found = conversation_of(question, known.answer(1, question, pieces, ()), is_whole=is_whole)
    assert found is not None
    return found


# The chain.


def test_messages_are_a_chain_of_their_exact_bytes() -> None:
    body = b'{"messages":[ {"role":"user","content":"a"} ,{"role":"user","content":"b"}]}'
    question = asked(body)
    first, second = question.messages
    assert (first.lead, second.lead) == (b" ", b" ,")
    assert first.sha256 == hashlib.sha256(first.data).digest()
    assert first.node == node_hash(BEGINNING, b" ", first.sha256)
    assert second.node == node_hash(first.node, b" ,", second.sha256)
    assert (question.head.node, question.head.count, question.known) == (second.node, 2, None)
    assert question.sha256 == hashlib.sha256(body).digest()
    joined = b"".join(message.lead + message.data for message in question.messages)
    assert filled(question.envelope, joined) == body


def test_what_instructs_before_all_others_is_a_prelude_and_adds_no_meaning() -> None:
    plain = asked(chat(user("Hi")))
    developer = {"role": "developer", "content": "Be kind."}
    question = asked(chat(system("Be brief."), developer, user("Hi"), system("Now be long.")))
    assert [message.instructs for message in question.messages] == [True, True, False, False]
    assert question.head.prelude == question.messages[1].node
    assert question.head.points[1].meaning == plain.head.meaning
    assert question.head.meaning == meaning(user("Hi"), system("Now be long."))
    assert plain.head.prelude is None


def test_the_places_from_which_a_call_may_go_on_are_given_the_furthest_first() -> None:
    question = asked(chat(system("s"), user("a"), assistant("b"), user("c")))
    points = [(point.meaning, point.after, point.answered) for point in question.head.points]
    assert points == [
        (meaning(user("a"), assistant("b"), user("c")), 0, False),
        (meaning(user("a"), assistant("b")), 1, True),
        (meaning(user("a")), 2, False),
    ]


def test_what_says_nothing_is_stored_and_is_no_place() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    body = orjson.dumps({"input": [user("a"), reasoning, assistant("b"), user("c")]})
    question = asked(body, owner=AGENT)
    assert len(question.messages) == 4
    assert question.messages[1].meaning == b""
    assert [point.after for point in question.head.points] == [0, 1, 3]
    assert question.head.meaning == meaning(user("a"), assistant("b"), user("c"))


def test_no_more_places_are_given_than_storage_looks_for() -> None:
    messages = [user(str(n)) for n in range(MAX_POINTS + 40)]
    known = Conversations()
    asked(chat(*messages[:-3]), known)
    for question in (asked(chat(*messages)), asked(chat(*messages), known)):
        assert [point.after for point in question.head.points] == list(range(MAX_POINTS))


def test_an_answer_hangs_under_its_question() -> None:
    known = Conversations()
    question = asked(chat(user("a")), known)
    found = answer(known, question, assistant("b"))
    assert found.messages == question.messages
    assert found.answer[0].node == node_hash(question.head.node, b"", found.answer[0].sha256)
    assert found.input_meaning == meaning(user("a"))
    assert found.output_meaning == meaning(user("a"), assistant("b"))
    assert found.answer[0].role == "assistant"


def test_nothing_goes_on_from_an_answer_that_was_cut_or_says_nothing() -> None:
    known = Conversations()
    question = asked(chat(user("a")), known)
    cut = answer(known, question, assistant("b"), is_whole=False)
    assert (len(cut.answer), cut.output_meaning) == (1, None)
    assert answer(known, question).output_meaning is None
    assert answer(known, question, {"type": "reasoning", "id": "r"}).output_meaning is None


def test_an_answer_to_what_could_not_be_read_is_kept_and_nothing_goes_on_from_it() -> None:
    pieces = Conversations().answer(1, None, [Slice(b"", orjson.dumps(assistant("b")))], ())
    found = conversation_of(None, pieces, is_whole=True)
    assert found is not None
    assert (len(found.answer), found.messages, found.output_meaning) == (1, (), None)
    assert found.answer[0].node == node_hash(BEGINNING, b"", found.answer[0].sha256)


def test_without_any_message_there_is_no_conversation() -> None:
    assert conversation_of(None, (), is_whole=True) is None
    assert conversation_of(asked(chat()), (), is_whole=True) is None
    assert conversation_of(asked(b'{"model":"m"}'), (), is_whole=True) is None


def test_the_text_of_a_legacy_completion_is_the_models() -> None:
    owner = Owner(1, None, "", operation_of("POST", "/v1/completions"))
    known = Conversations()
    question = asked(b'{"model":"m","prompt":"Once"}', known, owner)
    assert question.messages[0].role == "user"
    (said,) = known.answer(1, question, [Slice(b"", b'" upon a time"')], ())
    assert (said.role, text_of(said.data).strip()) == ("assistant", "upon a time")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages":[NaN]}', b'{"messages":[1]}'])
def test_what_cannot_be_split_is_no_question(body: bytes) -> None:
    assert Conversations().question(OWNER, body, ()) is None


def test_a_call_of_another_kind_is_no_question() -> None:
    owner = msgspec.structs.replace(OWNER, operation=operation_of("POST", "/v1/embeddings"))
    assert Conversations().question(owner, b'{"input":["a"]}', ()) is None


# Ids of messages.


def test_an_id_in_place_of_a_message_means_the_message() -> None:
    known = Conversations()
    first = asked(orjson.dumps({"input": [user("a")]}), known, AGENT)
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": "b"}
    ended = answer(known, first, item)
    reference = {"type": "item_reference", "id": "msg_1"}
    body = orjson.dumps({"input": [user("a"), reference, user("c")]})
    assert asked(body, known, AGENT).head.points[1].meaning == ended.output_meaning
    other = asked(body, known, msgspec.structs.replace(AGENT, project_id=2))
    assert other.head.points[1].meaning != ended.output_meaning


def test_ids_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "MAX_ITEM_IDS", 2)
    known = Conversations()
    first = asked(orjson.dumps({"input": "a"}), known, AGENT)
    items = [{"type": "message", "id": f"msg_{n}", **assistant(str(n))} for n in range(3)]
    answer(known, first, *items)

    def refers(n: int) -> bytes:
        reference = {"type": "item_reference", "id": f"msg_{n}"}
        return asked(orjson.dumps({"input": [reference]}), known, AGENT).head.meaning

    assert [refers(n) == meaning(items[n]) for n in range(3)] == [False, True, True]


# Secrets.


def test_a_secret_is_cut_out_before_anything_is_read() -> None:
    body = chat(user(f"my key is {SECRET.decode()}!"))
    known = Conversations()
    question = asked(body, known, secrets=[SECRET])
    assert SECRET not in repr(question.messages).encode()
    assert SECRET not in question.messages[0].data
    assert text_of(question.messages[0].data) == "my key is [redacted]!"
    assert question.sha256 is None
    assert question.head.asked == "my key is [redacted]!"
    longer = asked(chat(user(f"my key is {SECRET.decode()}!"), user("so")), known, secrets=[SECRET])
    assert longer.known is None
    assert SECRET not in longer.messages[0].data


def test_a_message_that_says_a_secret_in_other_words_of_json_is_not_taken_apart() -> None:
    spelled = b'{"messages":[{"role":"user","content":"%b"}]}' % SECRET.replace(b"-", b"\\u002d")
    assert Conversations().question(OWNER, spelled, [SECRET]) is None
    known = Conversations()
    piece = Slice(b"", b'{"role":"assistant","content":"%b"}' % SECRET.replace(b"-", b"\\u002d"))
    assert known.answer(1, asked(chat(user("a")), known), [piece], [SECRET]) == ()


def test_behind_what_is_known_a_secret_is_cut_out_all_the_same() -> None:
    known = Conversations()
    asked(chat(user("a")), known, secrets=[SECRET])
    question = asked(chat(user("a"), user(SECRET.decode())), known, secrets=[SECRET])
    assert question.known is None
    assert text_of(question.messages[1].data) == "[redacted]"


# What is known already.


def same(body: bytes, known: Conversations, owner: Owner = OWNER) -> Question:
    """Read a request behind what is known, which must give what it gives whole."""
    found, full = asked(body, known, owner), asked(body, owner=owner)
    new = len(found.messages)
    assert found.messages == full.messages[len(full.messages) - new :]
    if found.known is not None:
        assert len(full.messages) > new
        assert found.known == full.messages[-new - 1].node
    assert found._replace(messages=(), known=None) == full._replace(messages=(), known=None)
    return found


def test_a_call_that_goes_on_gives_only_its_new_messages() -> None:
    known = Conversations()
    first = same(chat(system("s"), user("a")), known)
    second = same(chat(system("s"), user("a"), assistant("b"), user("c")), known)
    assert (second.known, len(second.messages)) == (first.head.node, 2)
    assert second.preview == "c"
    third = same(chat(system("s"), user("a"), assistant("b"), user("c")), known)
    assert (third.known, third.messages) == (second.head.node, ())
    assert third.preview == "c"


def test_the_preview_is_the_users_though_only_results_of_tools_are_new() -> None:
    known = Conversations()
    same(chat(user("Do it.")), known)
    result = {"role": "tool", "tool_call_id": "1", "content": "done"}
    assert same(chat(user("Do it."), assistant("…"), result), known).preview == "Do it."
    assert asked(chat(assistant("only I"))).preview == "only I"


def test_interleaved_conversations_of_one_caller_each_go_on() -> None:
    known = Conversations()
    turns = {n: [system("s"), user(f"question {n}")] for n in range(5)}
    for _ in range(3):
        for n, messages in turns.items():
            found = same(chat(*messages), known)
            assert (found.known is not None) == (len(messages) > 2)
            messages += [assistant(f"answer {n}"), user("and?")]


def test_a_call_that_the_provider_completes_is_read_whole() -> None:
    known = Conversations()
    messages = [user("a"), user("b")]
    plain = orjson.dumps({"input": messages})
    chained = orjson.dumps({"input": messages, "previous_response_id": "resp_1"})
    kept = orjson.dumps({"input": messages, "conversation": "conv_1"})
    for body in (chained, kept, plain, chained, kept):
        question = same(body, known, AGENT)
        assert (question.known, len(question.messages)) == (None, 2)
    assert same(plain, known, AGENT).known is not None


def test_when_it_forgets_the_next_call_is_read_whole() -> None:
    known = Conversations()
    asked(chat(user("a")), known)
    known.forget()
    assert asked(chat(user("a"), user("b")), known).known is None


def test_a_conversation_of_too_many_messages_is_not_split_however_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slices, "MAX_MESSAGES", 3)
    monkeypatch.setattr(conversation, "MAX_MESSAGES", 3)
    known = Conversations()
    asked(chat(user("a"), user("b")), known)
    body = chat(user("a"), user("b"), user("c"), user("d"))
    assert known.question(OWNER, body, ()) is None
    assert Conversations().question(OWNER, body, ()) is None


@st.composite
def histories(draw: st.DrawFn) -> list[bytes]:
    """Draw requests of one client: it goes on, retries, edits, drops, changes what is around."""
    rng = random.Random(draw(st.integers(0, 10_000)))  # noqa: S311
    key = "messages"
    messages: list[object] = [system("s")] if draw(st.booleans()) else []
    before: dict[str, object] = {"model": "m"}
    after: dict[str, object] = {"tools": shaped.tools(rng)}
    bodies = []
    for _ in range(draw(st.integers(1, 8))):
        match draw(st.sampled_from("ggggeerdswtbh")):
            case "g":
                messages = [*messages, shaped.message(rng), shaped.message(rng)]
            case "e":
                messages = [*messages[:-1], shaped.message(rng)]
            case "d":
                messages = messages[: draw(st.integers(0, len(messages)))]
            case "s":
                messages = [system(shaped.text(rng)), *messages[1:]]
            case "w":
                messages = messages[2:]
            case "t":
                after = {"tools": shaped.tools(rng), "n": rng.random()}
            case "b":
                before = {"model": shaped.text(rng, 2), "instructions": shaped.text(rng)}
            case "h":
                messages = [*messages, rng.choice([7, [], None, shaped.Raw(b"tru")])]
        value = {**before, key: messages, **after}
        spelling = random.Random(1) if draw(st.booleans()) else shaped.Plainly()  # noqa: S311
        data = shaped.spelled(spelling, value)
        bodies.append(data[: draw(st.sampled_from([None, -1, -9]))])
    return bodies


@settings(max_examples=150)
@given(histories())
def test_what_is_known_changes_nothing_but_the_work(bodies: list[bytes]) -> None:
    known = Conversations()
    for body in bodies:
        full = Conversations().question(OWNER, body, ())
        if full is None:
            assert known.question(OWNER, body, ()) is None
        else:
            same(body, known)


class _Work:
    """Counts the bytes that are looked at, but for the comparison with what is known."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        for module, name, at in (
            (conversation, "read_message", 0),
            (conversation, "read_request", 1),
            (conversation, "redact", 0),
            (prefixes, "redact", 0),
            (slices, "_split", 0),
            (slices, "content_of", 0),
        ):
            monkeypatch.setattr(module, name, self._counted(getattr(module, name), at))
        monkeypatch.setattr(conversation, "hashlib", SimpleNamespace(sha256=self._sha256))

    def _counted(self, function: Any, at: int) -> Any:
        def count(*arguments: Any, **named: Any) -> Any:
            self.bytes += len(arguments[at])
            return function(*arguments, **named)

        return count

    def _sha256(self, data: bytes = b"", state: Any = None) -> Any:
        self.bytes += len(data)
        state = state or hashlib.sha256(data)

        def update(more: bytes) -> None:
            self.bytes += len(more)
            state.update(more)

        return SimpleNamespace(
            update=update,
            digest=state.digest,
            copy=lambda: self._sha256(state=state.copy()),
        )


def test_the_work_on_a_conversation_of_1000_turns_is_linear_in_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, known = _Work(monkeypatch), Conversations()
    tools = [{"name": "t" * 400}]
    messages: list[dict[str, object]] = [system("Be brief.")]
    costs = []
    for turn in range(1000):
        messages += [user(f"question {turn}"), assistant(f"answer {turn}")]
        before = work.bytes
        asked(chat(*messages[:-1], tools=tools), known)
        costs.append(work.bytes - before)
    # 2 new messages of 50 bytes, the tools and the rest of the body, each a few times.
    assert max(costs[1:]) < 6_000
    assert sum(costs[900:]) < 1.05 * sum(costs[100:200])


def test_a_body_that_would_be_too_large_to_put_together_is_kept_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = chat(user("hello"))
    monkeypatch.setattr(conversation, "MAX_ENVELOPED_BYTES", len(body))
    assert Conversations().question(OWNER, body, ()) is not None
    assert Conversations().question(OWNER, body + b" ", ()) is None
