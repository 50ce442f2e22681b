"""What can be asked to take recordings along, and to bring them back. See operations.py."""

from typing import Final

from proxy.access import ADMIN
from proxy.api.archive import (
    DEFAULT_FORMAT,
    FORMATS,
    JSON_LINES,
    RUNNING_HEADER,
    ImportedView,
)
from proxy.api.described import (
    BYTES,
    SESSION_PATH,
    SESSION_QUERY,
    Answer,
    Operation,
    Parameter,
    choice,
    ok,
)
from proxy.api.finetune import LINES_HEADER, SKIPPED_HEADER

_FORMAT: Final = Parameter(
    name="format",
    meaning="`jsonl`: all that is recorded, an archive that `POST /api/import` takes; `json`: one"
    " document with whole bodies, for people and programs; `html`: one page that opens without a"
    " server; `finetune`: lines for the fine-tuning of chat models",
    schema=choice(FORMATS, DEFAULT_FORMAT),
)
_HEADERS: Final = {
    "Content-Disposition": "`attachment`, with a file name",
    LINES_HEADER: "of `finetune`: how many lines there are",
    SKIPPED_HEADER: "of `finetune`: how many turns are in no line, by the reason, as"
    " `audio=1, repeated=2`",
    RUNNING_HEADER: "how many spans run: an archive has only those that have ended",
}


def _export(place: str, id: str, end: str, own: Parameter) -> Operation:
    return Operation(
        method="GET",
        path=f"/api/sessions/{place}/export",
        id=id,
        tag="Archives",
        summary=f"A session as a file{end}",
        description="docs/export.md says what each format holds. What breaks off is not whole: an"
        " archive then lacks its last line.",
        parameters=(own, _FORMAT),
        answers={
            "200": Answer(meaning="The file, as it is read.", media_type=BYTES, headers=_HEADERS)
        },
        codes=("bad_parameter", "not_found", "conflict"),
    )


OPERATIONS: Final[tuple[Operation, ...]] = (
    _export("{id}", "exportSession", "", SESSION_PATH),
    _export("by-id", "exportSessionById", ", for any id", SESSION_QUERY),
    Operation(
        method="GET",
        path="/api/traces/export",
        id="exportLoneTraces",
        tag="Archives",
        summary="All traces that have no session, as an archive",
        answers={
            "200": Answer(
                meaning="The archive, as it is read; empty where there are none.",
                media_type=BYTES,
                headers={name: _HEADERS[name] for name in ("Content-Disposition", RUNNING_HEADER)},
            )
        },
        codes=("conflict",),
    ),
    Operation(
        method="POST",
        path="/api/import",
        id="importArchives",
        tag="Archives",
        summary="Store what archives hold",
        description=f"The body is archives, one behind the other (`{JSON_LINES}`), of any length."
        " What is there already and is the same is passed over, so that what broke off may be sent"
        " again; what is there and is not the same is a 409, and what came before it is stored.",
        need=ADMIN,
        answers=ok("What came in.", ImportedView),
        codes=("bad_parameter", "bad_archive", "conflict"),
        curl="--data-binary @traceway.jsonl",
    ),
)
