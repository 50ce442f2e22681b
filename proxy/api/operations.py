"""What the API can be asked: one table, from which its description and its page are made.

Invariant: every route of the proxy and the API stands here once, with what it needs; a test
compares them. It routes nothing.
"""

from typing import Final

from proxy.api import (
    admin_operations,
    archive_operations,
    erasing_operations,
    ingest_operations,
    mcp_operations,
    recorded_operations,
    served_operations,
)
from proxy.api.described import Operation

TAGS: Final = {
    "Proxy": "Calls to LLM APIs.",
    "Sessions": "Conversations: the calls that belong together.",
    "Traces and spans": "Calls, one by one.",
    "Archives": "Recordings as files, and back.",
    "Write API": "Traces and spans that applications hand in themselves.",
    "Events": "What happens, as it happens.",
    "Search": "Help with the search language.",
    "MCP": "What coding agents read.",
    "Erasing": "What is to be forgotten.",
    "Keys and projects": "Who may come in, and to what.",
    "Server": "How the server is.",
}

OPERATIONS: Final[tuple[Operation, ...]] = (
    *recorded_operations.OPERATIONS,
    *archive_operations.OPERATIONS,
    *ingest_operations.OPERATIONS,
    *served_operations.OPERATIONS,
    *mcp_operations.OPERATIONS,
    *admin_operations.OPERATIONS,
    *erasing_operations.OPERATIONS,
)
