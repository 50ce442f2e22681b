"""An entry of the table of fields (fields.py): what is known of one beyond its type."""

from dataclasses import dataclass, field
from typing import Final

NULL: Final = object()
# A JSON Schema, or a part of one: what it may hold is JSON's business.
Schema = dict[str, object]


@dataclass(frozen=True, slots=True)
class About:
    """A field: what it means, an example, and what its schema says beyond its type."""

    meaning: str
    example: object = None  # none of its own: that of its type; NULL: null
    schema: Schema = field(default_factory=dict)
