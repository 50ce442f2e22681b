"""All cases of the differential table, in the order in which they are shown."""

from tests.differential import answers, framing, headers, lives, syntax, targets
from tests.differential.script import Case

GROUPS: tuple[tuple[str, tuple[Case, ...]], ...] = (
    ("Where a request ends", tuple(framing.cases())),
    ("Lines, versions, requests in a row", tuple(syntax.cases())),
    ("What a request is addressed to", tuple(targets.cases())),
    ("Headers", tuple(headers.cases())),
    ("What an upstream answers", tuple(answers.cases())),
    ("Connections over time", tuple(lives.cases())),
)
CASES: tuple[Case, ...] = tuple(case for _, cases in GROUPS for case in cases)
# Who reads them differently than its neighbour has a second request smuggled in.
SMUGGLING: tuple[Case, ...] = tuple(case for _, cases in GROUPS[:3] for case in cases)
