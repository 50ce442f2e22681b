"""A session that has everything that its page must show, for tests and for pictures."""

import base64
import struct
import zlib

from tests.calling import CUT, LEFT
from tests.running import Running
from tests.ui.story import T0, Story, assistant, tool_call, usage, user

HOUR_S = 3600
MARKDOWN = """Here is the **plan**, in *three* steps:

1. Read `config.toml` and merge the environment.
2. Validate each key:
   - types and ranges
   - `port` below 65,536
3. Report all problems at once.

## The code

```python
def load(path: Path) -> Config:
    table = tomllib.loads(path.read_text())
    return Config(**{key: convert(value) for key, value in table.items()})
```

| key | default |
| --- | ------- |
| port | 3000 |

See [the documentation](https://docs.python.org/3/library/tomllib.html) for `tomllib`."""


def png(width: int = 48, height: int = 32) -> bytes:
    """Paint a picture of its own bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(
        b"\0" + b"".join(bytes((x * 5 % 256, y * 7 % 256, 140)) for x in range(width))
        for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def data_url(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("read_file", "search", "run_tests")
]


async def rich(tw: Running, *, at_us: int = T0, running: bool = True) -> Story:
    """Tell it, from that time on."""
    story = Story(tw, "support-bot:user_42", at_us=at_us)
    prompt = "You are a careful engineer.\nAnswer briefly.\nUse tools where they help."
    story.messages.append({"role": "system", "content": prompt})
    tools = {"request": {"tools": TOOLS}}
    await story.turn(
        user("How do I load a configuration in Python?"),
        assistant(MARKDOWN, reasoning_content="The user wants a small loader. tomllib is enough."),
        counts=usage(812, 240, 512, 64),
        latency_s=4.2,
        **tools,
    )
    await story.turn(
        user("Find where we read it now."),
        assistant(
            None,
            tool_calls=[
                tool_call("c1", "search", {"query": "tomllib", "paths": ["proxy", "storage"]}),
                tool_call("c2", "read_file", {"path": "proxy/config.py", "lines": [1, 40]}),
            ],
        ),
        counts=usage(1_104, 58, 960),
        latency_s=1.1,
        pause_s=3,
        **tools,
    )
    await story.turn(
        [
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": '[{"file":"proxy/config.py","line":12}]',
            },
            {"role": "tool", "tool_call_id": "c2", "content": 'import tomllib\n\n"""TOML."""\n'},
        ],
        assistant("It is read in `proxy/config.py`, line 12."),
        counts=usage(1_311, 31, 1_100),
        latency_s=1.9,
        **tools,
    )
    await story.fails(
        user("What does this picture show?"),
        "Rate limit reached for gpt-4o-mini in organization org-x on tokens per min (TPM): Limit"
        " 200000, Used 199213, Requested 2101. Please try again in 394ms.",
    )
    await story.turn(
        user(
            [
                {"type": "text", "text": "What does this picture show?"},
                {"type": "image_url", "image_url": {"url": data_url(png())}},
                {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            ]
        ),
        assistant("A gradient from blue to orange, and a cat that I was not given."),
        counts=usage(2_400, 22, 1_300),
        latency_s=3.3,
        **tools,
    )
    # A retry: the same question again, with another answer.
    kept = story.messages[:-2]
    again = story.messages[-2]
    story.messages = kept
    await story.turn(
        again,
        assistant("A gradient. The second picture is an address, which I cannot open."),
        counts=usage(2_400, 26, 2_300),
        latency_s=2.8,
        pause_s=20 * HOUR_S,
        **tools,
    )
    story.messages[0] = {
        "role": "system",
        "content": prompt.replace("briefly", "in one sentence"),
    }
    await story.breaks_off(user("And now in one sentence?"), "Load it with tomllib and then", CUT)
    await story.turn(
        user("Go on."),
        assistant("…validate it."),
        model="llama-3.3-70b-local",
        latency_s=9.4,
        request={"tools": TOOLS[:2]},
    )
    await story.breaks_off(user("Tell me more about " + "x" * 40), "There is a lot to say", LEFT)
    if running:
        await story.runs(user("One last question: what is the default port?"), "The default is ")
    return story
