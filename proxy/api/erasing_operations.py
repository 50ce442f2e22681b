"""What can be asked about erasing. See operations.py."""

from typing import Final

from proxy.access import ADMIN
from proxy.api import params
from proxy.api.answer_shapes import ErasureList
from proxy.api.described import Answer, Operation, Parameter, limit, ok
from proxy.api.erasing import ErasureView, NewErasure

_TAG: Final = "Erasing"
_ID: Final = Parameter(
    name="id",
    place="path",
    meaning="the order's number; anything else names nothing",
    schema={"type": "integer", "minimum": 1, "maximum": 999_999_999},
    example=1,
)

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        method="POST",
        path="/api/erasures",
        id="createErasure",
        tag=_TAG,
        summary="Have the calls of a session, a user or a query erased",
        description="It is done part by part between the calls, and goes on after a restart."
        " Calls that come after the order stay. docs/keeping.md says what goes, and what stays.",
        need=ADMIN,
        body=NewErasure,
        answers={"202": Answer(meaning="The order.", body=ErasureView)},
        codes=("bad_parameter", "not_found"),
    ),
    Operation(
        method="GET",
        path="/api/erasures",
        id="listErasures",
        tag=_TAG,
        summary="Orders to erase, the newest first",
        need=ADMIN,
        parameters=(limit(params.DEFAULT_LIMIT, params.MAX_LIMIT),),
        answers=ok("The orders.", ErasureList),
        codes=("bad_parameter",),
    ),
    Operation(
        method="GET",
        path="/api/erasures/{id}",
        id="getErasure",
        tag=_TAG,
        summary="An order to erase: how far it is, and what was erased",
        need=ADMIN,
        parameters=(_ID,),
        answers=ok("The order.", ErasureView),
        codes=("not_found",),
    ),
    Operation(
        method="DELETE",
        path="/api/erasures/{id}",
        id="cancelErasure",
        tag=_TAG,
        summary="Erase no more of an order than is erased already",
        description="One that has ended stays as it is.",
        need=ADMIN,
        parameters=(_ID,),
        answers=ok("The order.", ErasureView),
        codes=("not_found",),
    ),
)
