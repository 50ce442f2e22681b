"""What was recorded is described with the ids that name it."""

import re

from proxy.api.params import hex_id
from proxy.api.recorded_operations import OPERATIONS


def test_each_operation_on_a_session_is_there_for_ids_of_both_kinds() -> None:
    by_path = {(one.method, one.path): one for one in OPERATIONS if "{id}" in one.path}
    by_query = {(one.method, one.path): one for one in OPERATIONS if "by-id" in one.path}
    of_sessions = {name for name in by_path if name[1].startswith("/api/sessions/")}
    assert {(m, p.replace("by-id", "{id}")) for m, p in by_query} == of_sessions
    for (method, path), one in by_query.items():
        other = by_path[method, path.replace("by-id", "{id}")]
        assert (one.need, one.answers, one.codes) == (other.need, other.answers, other.codes)
        assert one.parameters[0].required
        assert one.parameters[1:] == other.parameters[1:]


def test_an_id_of_hex_digits_is_one_that_the_server_reads() -> None:
    for operation in OPERATIONS:
        for one in operation.parameters:
            pattern = str(one.schema.get("pattern"))
            if one.place == "path" and re.fullmatch(r"\^\[0-9a-f\]\{\d+\}\$", pattern):
                assert re.search(pattern, str(one.example))
                assert hex_id(str(one.example), len(str(one.example))) is not None
