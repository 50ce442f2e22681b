"""What admins do: keys and projects; and what a key says of itself. See operations.py."""

from typing import Final

from proxy.access import ADMIN, ANY
from proxy.api.answer_shapes import KeyList, ProjectList, ProviderKeyList
from proxy.api.described import Answer, Operation, Parameter, ok
from proxy.api.keys import (
    KeyView,
    MadeKeyView,
    NewKey,
    NewProject,
    ProjectChange,
    ProjectView,
    SelfView,
)
from proxy.api.provider_keys import NewProviderKey, ProviderKeyView

_TAG: Final = "Keys and projects"
_UPSTREAM: Final = Parameter(
    name="upstream",
    place="path",
    meaning="an upstream's name in the configuration",
    example="openai",
)

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        method="GET",
        path="/api/self",
        id="getSelf",
        tag=_TAG,
        summary="Who the caller is, and what they may do",
        need=ANY,
        answers=ok("Who it is.", SelfView),
    ),
    Operation(
        method="GET",
        path="/api/keys",
        id="listKeys",
        tag=_TAG,
        summary="The keys of all projects, newest first, the revoked ones among them",
        need=ADMIN,
        answers=ok("All of them.", KeyList),
    ),
    Operation(
        method="POST",
        path="/api/keys",
        id="createKey",
        tag=_TAG,
        summary="Make a key",
        description="The answer is the only place where the key stands. With the first one that is"
        " ever made, keys are on, and every request needs one (but with `[auth] mode`).",
        need=ADMIN,
        body=NewKey,
        answers={"201": Answer(meaning="The key.", body=MadeKeyView)},
        codes=("bad_parameter", "not_found", "conflict"),
    ),
    Operation(
        method="DELETE",
        path="/api/keys/{id}",
        id="revokeKey",
        tag=_TAG,
        summary="Revoke a key",
        description="Nobody comes in with it any more, from the next request on. It stays listed.",
        need=ADMIN,
        parameters=(
            Parameter(
                name="id",
                place="path",
                meaning="the key's number; anything else names nothing",
                schema={"type": "integer", "minimum": 1, "maximum": 999_999_999},
                example=1,
            ),
        ),
        answers=ok("The key.", KeyView),
        codes=("not_found",),
    ),
    Operation(
        method="GET",
        path="/api/provider-keys",
        id="listProviderKeys",
        tag=_TAG,
        summary="The keys with which the project calls upstreams, without the keys themselves",
        need=ADMIN,
        answers=ok("All of them.", ProviderKeyList),
    ),
    Operation(
        method="PUT",
        path="/api/provider-keys/{upstream}",
        id="putProviderKey",
        tag=_TAG,
        summary="Store the key with which the project calls an upstream",
        description="It is sealed, and never shown again. docs/provider-keys.md says more.",
        need=ADMIN,
        parameters=(_UPSTREAM,),
        body=NewProviderKey,
        answers=ok("The key, as it may be shown.", ProviderKeyView),
        codes=("bad_parameter", "unknown_upstream", "key_file_unusable"),
    ),
    Operation(
        method="DELETE",
        path="/api/provider-keys/{upstream}",
        id="deleteProviderKey",
        tag=_TAG,
        summary="Delete a stored provider key",
        description="One that the environment has stays.",
        need=ADMIN,
        parameters=(_UPSTREAM,),
        answers=ok("The key that was deleted.", ProviderKeyView),
        codes=("not_found",),
    ),
    Operation(
        method="GET",
        path="/api/projects",
        id="listProjects",
        tag=_TAG,
        summary="All projects, oldest first",
        need=ADMIN,
        answers=ok("All of them.", ProjectList),
    ),
    Operation(
        method="POST",
        path="/api/projects",
        id="createProject",
        tag=_TAG,
        summary="Make a project",
        need=ADMIN,
        body=NewProject,
        answers={"201": Answer(meaning="The project.", body=ProjectView)},
        codes=("bad_parameter", "conflict"),
    ),
    Operation(
        method="PATCH",
        path="/api/projects/{name}",
        id="changeProject",
        tag=_TAG,
        summary="Give a project another name, or its sessions another budget",
        description="What the body leaves out stays; null takes a limit away.",
        need=ADMIN,
        parameters=(
            Parameter(name="name", place="path", meaning="the project's name", example="default"),
        ),
        body=ProjectChange,
        answers=ok("The project.", ProjectView),
        codes=("bad_parameter", "not_found", "conflict"),
    ),
)
