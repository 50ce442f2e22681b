"""Archives that are made by hand, line by line."""

import hashlib
import json
from typing import Any

from storage.archive_block import Block
from storage.archive_lines import BadArchive
from storage.chain import BEGINNING, node_hash

Line = dict[str, Any]
TRACE = "d" * 32


def written(lines: list[Line]) -> list[bytes]:
    """Write lines with an end that fits them."""
    body = [json.dumps(one).encode() + b"\n" for one in lines]
    digest = hashlib.sha256(b"".join(body)).hexdigest()
    end = {"type": "end", "lines": len(body), "sha256": digest}
    return [*body, json.dumps(end).encode() + b"\n"]


def archive(*lines: Line, session_id: str = "s", name: str | None = None) -> list[bytes]:
    """Write a session of one trace that holds these lines."""
    session = {"type": "session", "id": session_id} | ({"name": name} if name else {})
    header = {"type": "traceway", "format": "session", "version": 1}
    return written([header, session, {"type": "trace", "id": TRACE, "source": "header"}, *lines])


def block_of(lines: list[bytes]) -> Block:
    """Read a block, for the caller to close."""
    block = Block()
    try:
        for line in lines:
            block.add(line)
    except BadArchive:
        block.close()
        raise
    return block


def sha256_of(data: str) -> str:
    return hashlib.sha256(data.encode()).hexdigest()


def content(data: str) -> Line:
    return {"type": "content", "sha256": sha256_of(data), "data": data}


def node(data: str, parent: str | None = None, *, lead: str = ",", **fields: Any) -> Line:
    """Make a node of a content; it is the user's and means nothing unless ``fields`` say."""
    above = BEGINNING if parent is None else bytes.fromhex(parent)
    own = node_hash(above, lead.encode(), bytes.fromhex(sha256_of(data)))
    line = {"type": "node", "hash": own.hex(), "lead": lead, "content": sha256_of(data)}
    known = {} if parent is None else {"parent": parent}
    return {**line, **known, "role": "user", "meaning": "", **fields}


def span(n: int = 1, **fields: Any) -> Line:
    line = {"type": "span", "trace": TRACE, "id": f"{n:016x}", "state": "completed"}
    line |= {"kind": "llm_call", "name": "m", "started_at_us": 1_700_000_000_000_000 + n}
    return {**line, "duration_us": 5, **fields}
