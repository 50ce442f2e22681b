"""What the doctor asks of what was erased: that nothing of it is left. Pure: texts of SQL."""

from typing import Final

from storage.forgetting import HOLDS

# Each counts what should not be there.
LEFT_BEHIND: Final = {
    "calls of which the content was forgotten, and that hold something": f"""
SELECT COUNT(*) FROM traces t
JOIN spans s ON s.project_id = t.project_id AND s.trace_id = t.trace_id
WHERE t.forgotten_at_us IS NOT NULL AND s.state <> 'running' AND {HOLDS}
""",  # noqa: S608 (constants)
    "orders to erase that have ended, and still say what was asked for": """
SELECT COUNT(*) FROM erasures WHERE ended_at_us IS NOT NULL AND given IS NOT NULL
""",
    "sessions and traces that nobody is going to erase, as was asked for": """
SELECT COUNT(*) FROM erasure_targets t WHERE NOT EXISTS (
  SELECT 1 FROM erasures e WHERE e.project_id = t.project_id AND e.id = t.erasure_id
  AND e.ended_at_us IS NULL)
""",
}
