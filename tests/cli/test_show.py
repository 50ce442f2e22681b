"""`traceway sessions show`: metrics and conversation, as a person reads them and as JSON."""

from tests.cli.asking import Said, started
from tests.cli.talking import conversation
from tests.running import Running
from tests.wire import ScriptedUpstream

GOLDEN = """\
user_123:conv_456
completed, gpt-4o-2024-08-06, unheard-of
"""


async def test_a_session_is_its_six_metrics_and_its_turns_in_order(
    tw: Running, upstream: ScriptedUpstream
) -> None:
    await conversation(tw, upstream, "user_123:conv_456")
    async with started(
        "sessions", "show", "user_123:conv_456", "--url", tw.url, COLUMNS="60"
    ) as command:
        assert await command.ended() == Said(0, GOLDEN, "")
