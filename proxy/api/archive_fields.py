"""What the fields of an import's answer mean: its part of the table of fields.py. Pure."""

from typing import Final

from proxy.api.about import About

ARCHIVES: Final[dict[str, About]] = {
    "Imported.sessions": About("sessions that the archives have", 1),
    "Imported.traces": About("traces that were not there", 12),
    "Imported.spans": About("spans that were not there", 12),
    "known_spans": About("spans that were there already, and are the same", 0),
}
