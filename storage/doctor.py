"""The doctor: looks at everything that is stored and says what does not fit together.

Invariant: it only reads. What it checks are the invariants of the other files of this room, each
from the rows themselves and not by the code that wrote them. It reads the whole database, so it
takes as long as that takes.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from storage.aggregates import (
    SPAN_FACTS,
    TOTALS,
    TRACE_COLUMNS,
    SpanFacts,
    TraceFacts,
    bounded,
    fold_trace,
    totals,
)
from storage.contents import unpack
from storage.continuation import UPROOTED
from storage.database import DatabaseCorrupt, Readable, Value
from storage.doctor_erasures import LEFT_BEHIND
from storage.fulltext import TextOf, count_texts, holds, parts_of
from storage.keys import TraceKey
from storage.long_traces import packed, tally_of
from storage.mentions import BROUGHT
from storage.opened import OPENING_COLUMNS, Opening
from storage.parameters import clean_text
from storage.rollup import INSERTED, READ_SESSION_MODELS, READ_SESSION_TRACES
from storage.session_sums import SessionChange
from storage.wholeness import ROWS, all_bodies, all_contents, broken_contents, broken_nodes, each

# ruff: noqa: S608 (the SQL below is put together from constants of this package, never from values)

RESTORE: Final = (
    "restore a backup, or stop the server and save what can be read: traceway doctor --recover-to"
    " FILE; the rest can be read on"
)
LOST: Final = "their records were lost; to delete their sessions gives it back"
REPORT: Final = "please report this as a bug; the rest can be read on"


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not fit, how many there are of it, and what to do."""

    what: str
    count: int
    remedy: str


UNHEARD_OF: Final = "reservations of calls that are not there"
# Each counts what should not be there.
COUNTS_OF: Final = {
    "contents that nothing holds": """
SELECT COUNT(*) FROM contents c
WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE content_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM holes WHERE content_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM spans WHERE request_content_id = c.id)
  AND NOT EXISTS (SELECT 1 FROM spans WHERE response_content_id = c.id)
""",
    "nodes that no call holds": """
SELECT COUNT(*) FROM nodes n
WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE parent_id = n.id)
  AND NOT EXISTS (SELECT 1 FROM spans WHERE input_node_id = n.id)
  AND NOT EXISTS (SELECT 1 FROM spans WHERE output_node_id = n.id)
""",
    "nodes without their content, message or parent": """
SELECT COUNT(*) FROM nodes n
LEFT JOIN contents c ON c.id = n.content_id AND c.project_id = n.project_id
LEFT JOIN messages m ON m.content_id = n.content_id
LEFT JOIN nodes p ON p.id = n.parent_id AND p.project_id = n.project_id
WHERE c.id IS NULL OR m.content_id IS NULL OR n.depth <> COALESCE(p.depth, 0) + 1
""",
    "messages that stand nowhere": """
SELECT COUNT(*) FROM messages m
WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE content_id = m.content_id)
""",
    "holes without their content or span": """
SELECT COUNT(*) FROM holes h LEFT JOIN contents c ON c.id = h.content_id
LEFT JOIN spans s ON s.seq = h.span_seq AND s.project_id = c.project_id
WHERE s.seq IS NULL
""",
    "calls of which a body or a message is missing": """
SELECT COUNT(*) FROM spans s
LEFT JOIN contents a ON a.id = s.request_content_id
LEFT JOIN contents b ON b.id = s.response_content_id
LEFT JOIN nodes i ON i.id = s.input_node_id
LEFT JOIN nodes o ON o.id = s.output_node_id
LEFT JOIN nodes p ON p.id = s.prelude_node_id
WHERE a.id IS DISTINCT FROM s.request_content_id OR b.id IS DISTINCT FROM s.response_content_id
  OR i.id IS DISTINCT FROM s.input_node_id OR o.id IS DISTINCT FROM s.output_node_id
  OR p.id IS DISTINCT FROM s.prelude_node_id
""",
    "calls that go on from where no other call stands": f"""
SELECT COUNT(*) FROM spans s WHERE s.base_meaning IS NOT NULL AND {UPROOTED}
""",
    "calls without their trace, and traces without calls": """
SELECT (SELECT COUNT(*) FROM spans s LEFT JOIN traces t
  ON t.project_id = s.project_id AND t.trace_id = s.trace_id WHERE t.trace_id IS NULL)
+ (SELECT COUNT(*) FROM traces t WHERE t.opened_seq IS NULL AND NOT EXISTS (
  SELECT 1 FROM spans s WHERE s.project_id = t.project_id AND s.trace_id = t.trace_id))
""",
    "spans that saw a call as well which is not there": """
SELECT COUNT(*) FROM spans s WHERE s.same_call IS NOT NULL AND (s.owner IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM spans c WHERE c.project_id = s.project_id
    AND c.span_id = s.same_call AND c.owner IS NOT NULL))
""",
    "budgets of sessions that are not there": """
SELECT COUNT(*) FROM session_budgets b WHERE NOT EXISTS (
  SELECT 1 FROM sessions s WHERE s.project_id = b.project_id AND s.session_id = b.session_id)
""",
    "reservations of calls whose cost is known": """
SELECT COUNT(*) FROM reservations r JOIN spans s ON s.project_id = r.project_id
  AND s.trace_id = r.trace_id AND s.span_id = r.span_id WHERE s.cost_nusd IS NOT NULL
""",
    UNHEARD_OF: """
SELECT COUNT(*) FROM reservations r WHERE NOT EXISTS (
  SELECT 1 FROM spans s WHERE s.project_id = r.project_id
  AND s.trace_id = r.trace_id AND s.span_id = r.span_id)
""",
    "sessions without traces": """
SELECT COUNT(*) FROM sessions s WHERE NOT EXISTS (
  SELECT 1 FROM traces t WHERE t.project_id = s.project_id AND t.session_id = s.session_id)
""",
    **LEFT_BEHIND,
}


async def check(db: Readable, text_of: TextOf) -> list[Finding]:
    """Look at everything; return what does not fit, and nothing where all does.

    A server may go on writing meanwhile; what it changes while it is looked at may be found then.
    ``text_of`` is that with which the messages were written.
    """
    if (damage := await db.damage()) is not None:
        return [Finding(f"damage in the file: {damage}", 1, RESTORE)]
    found = []
    for what, sql in COUNTS_OF.items():
        ((count,),) = await db.read(sql, {})
        found.append(Finding(what, count, LOST if what == UNHEARD_OF else REPORT))
    bodies, holes = await _bodies(db)
    traces, projects = await _sums(db)
    found += [
        Finding("contents that are not of their hash", await _count(broken_contents(db)), RESTORE),
        Finding("nodes that are not of their hash", await _count(broken_nodes(db)), RESTORE),
        Finding("calls whose bodies do not rebuild", bodies, RESTORE),
        Finding("holes that do not fit their envelopes", holes, REPORT),
        Finding("messages that sessions mention wrongly", await _mentions(db), REPORT),
        Finding("messages that full text has wrongly", await _texts(db, text_of), REPORT),
        Finding("traces that are not the sum of their calls", traces, REPORT),
        Finding("sessions that are not the sum of their traces", await _sessions(db), REPORT),
        Finding("projects that are not the sum of their traces", projects, REPORT),
    ]
    return [finding for finding in found if finding.count]


async def _count(found: AsyncIterator[int]) -> int:
    return len([one async for one in found])


HOLE: Final = """
SELECT COUNT(*) FROM holes WHERE content_id = :content_id AND span_seq = :seq
"""
HOLES: Final = "SELECT COUNT(*) FROM holes"


async def _bodies(db: Readable) -> tuple[int, int]:
    """Count the bodies that do not rebuild, and the holes that do not fit their envelopes."""
    wrong = missing = found = 0
    async for bodies in all_bodies(db):
        wrong += (not bodies.request_is_whole) + (not bodies.response_is_whole)
        for content_id in bodies.holes:
            ((there,),) = await db.read(HOLE, {"content_id": content_id, "seq": bodies.seq})
            found += there
            missing += not there
    ((holes_in_all,),) = await db.read(HOLES, {})
    return wrong, missing + holes_in_all - found


SESSION_KEYS: Final = """
SELECT DISTINCT session_key FROM spans WHERE session_key > :after ORDER BY session_key
"""
SAID: Final = BROUGHT.format(which="s.session_key = :session_key", columns="DISTINCT b.content_id")
UNMENTIONED: Final = f"""
SELECT COUNT(*), COUNT(m.content_id) FROM ({SAID}) said
LEFT JOIN mentions m ON m.content_id = said.content_id AND m.session_key = :session_key
"""
MENTIONS: Final = "SELECT COUNT(*) FROM mentions"
OF_NO_CALL: Final = """
SELECT COUNT(*) FROM mentions m
LEFT JOIN spans s ON s.seq = m.span_seq AND s.session_key = m.session_key WHERE s.seq IS NULL
"""


async def _mentions(db: Readable) -> int:
    brought = mentioned = 0
    async for (session_key,) in each(db, SESSION_KEYS, after=-(2**63)):
        ((said, found),) = await db.read(UNMENTIONED, {"session_key": session_key})
        brought += said
        mentioned += found
    ((in_all,),) = await db.read(MENTIONS, {})
    ((of_no_call,),) = await db.read(OF_NO_CALL, {})
    return int(brought - mentioned + in_all - mentioned + of_no_call)


MENTIONED: Final = """
AND EXISTS (SELECT 1 FROM mentions WHERE content_id = c.id)
AND NOT EXISTS (SELECT 1 FROM unindexed WHERE content_id = c.id)
"""
WAITING_FOR_NOTHING: Final = """
SELECT COUNT(*) FROM unindexed u
WHERE NOT EXISTS (SELECT 1 FROM mentions WHERE content_id = u.content_id)
"""
PROJECTS: Final = "SELECT DISTINCT project_id FROM contents"
# As much of a text as is looked for in the index.
SAMPLE_CHARACTERS: Final = 200


async def _texts(db: Readable, text_of: TextOf) -> int:
    parts = await parts_of(db)
    mentioned = indexed = 0
    ((wrong,),) = await db.read(WAITING_FOR_NOTHING, {})
    async for content_id, project_id, _, encoding, size, data in all_contents(db, MENTIONED):
        mentioned += 1
        try:
            text = text_of(unpack(encoding, size, data))
        except DatabaseCorrupt:
            continue  # a finding of its own
        sample = clean_text(text[:SAMPLE_CHARACTERS])
        # The last word may be cut.
        words = sample if len(sample) < SAMPLE_CHARACTERS else sample.rpartition(" ")[0]
        said = words if any(map(str.isalnum, words)) else None
        wrong += not await holds(db, parts, content_id, db.full_text.search(project_id, said))
    for (project_id,) in await db.read(PROJECTS, {}):
        indexed += await count_texts(db, project_id)
    return int(wrong) + abs(indexed - mentioned)


PAGE_OF_TRACES: Final = f"""
SELECT project_id, trace_id, tally, {", ".join((*OPENING_COLUMNS, *TRACE_COLUMNS))} FROM traces
WHERE (project_id, trace_id) > (:project_id, :trace_id)
ORDER BY project_id, trace_id LIMIT {ROWS}
"""
_SAID: Final = len(OPENING_COLUMNS) + 3
SPANS_OF_PAGE: Final = f"""
SELECT project_id, trace_id, {SPAN_FACTS} FROM spans
WHERE (project_id, trace_id) > (:project_id, :trace_id)
  AND (project_id, trace_id) <= (:last_project_id, :last_trace_id)
"""
STORED: Final = """
SELECT project_id, SUM(bytes) FROM (
  SELECT project_id, length(data) AS bytes FROM contents
  UNION ALL
  SELECT project_id, COALESCE(length(request_envelope), 0) + COALESCE(length(response_envelope), 0)
  FROM spans) AS kept
GROUP BY project_id
"""
PROJECT_TOTALS: Final = f"SELECT project_id, stored_bytes, {', '.join(TOTALS)} FROM project_totals"


async def _sums(db: Readable) -> tuple[int, int]:
    """Count the traces, and the projects, that are not the sums of what is below them."""
    wrong = 0
    expected: defaultdict[int, list[int]] = defaultdict(lambda: [0] * (len(TOTALS) + 1))
    after: dict[str, Value] = {"project_id": 0, "trace_id": b""}
    while traces := await db.read(PAGE_OF_TRACES, after):
        project_id, trace_id = traces[-1][:2]
        page = {**after, "last_project_id": project_id, "last_trace_id": trace_id}
        spans: defaultdict[TraceKey, list[SpanFacts]] = defaultdict(list)
        for row in await db.read(SPANS_OF_PAGE, page):
            spans[row[:2]].append(SpanFacts.of(row[2:]))
        for row in traces:
            opening, trace = Opening._make(row[3:_SAID]), TraceFacts.of(row[_SAID:])
            own = spans[row[:2]]
            if own or opening.seq is not None:  # else a finding of its own
                folded = fold_trace(own, trace.session_id, trace.session_source, opening)
                is_counted = row[2] is None or row[2] == packed(tally_of(own))
                wrong += folded != trace or not is_counted
            for i, n in enumerate(totals(trace), 1):
                expected[row[0]][i] += n
        after = {"project_id": project_id, "trace_id": trace_id}
    expected.update({p: [*map(bounded, sums)] for p, sums in expected.items()})
    for project_id, stored_bytes in await db.read(STORED, {}):
        expected[project_id][0] = stored_bytes
    given = {row[0]: list(row[1:]) for row in await db.read(PROJECT_TOTALS, {})}
    nothing = [0] * (len(TOTALS) + 1)
    projects = expected.keys() | given.keys()
    return wrong, sum(expected[p] != given.get(p, nothing) for p in projects)


SUMMED: Final = tuple(c for c in INSERTED if c not in ("name", "starred"))
PAGE_OF_SESSIONS: Final = f"""
SELECT {", ".join(SUMMED)} FROM sessions
WHERE (project_id, session_id) > (:project_id, :session_id)
ORDER BY project_id, session_id LIMIT {ROWS}
"""
MODELS: Final = """
SELECT model, n FROM session_models WHERE project_id = :project_id AND session_id = :session_id
"""


async def _sessions(db: Readable) -> int:
    wrong = 0
    key: dict[str, Value] = {"project_id": 0, "session_id": ""}
    while rows := await db.read(PAGE_OF_SESSIONS, key):
        for row in rows:
            given = dict(zip(SUMMED, row, strict=True))
            key = {"project_id": given["project_id"], "session_id": given["session_id"]}
            traces = [TraceFacts.of(trace) for trace in await db.read(READ_SESSION_TRACES, key)]
            if not traces:
                continue  # a finding of its own
            session = SessionChange.beginning_with(traces[0])
            for trace in traces:
                session.replace(None, trace)
            expected = session.values((given["project_id"], given["session_id"]))
            if given["session_key"] is None:  # of a session older than its first message
                expected["session_key"] = None
            models = await db.read(MODELS, key)
            wrong += expected != given or sorted(models) != sorted(
                await db.read(READ_SESSION_MODELS, key)
            )
    return wrong
