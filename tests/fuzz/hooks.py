"""What schemathesis checks beside its own checks; it runs this in its own process.

TRACEWAY_FUZZ_SCOPE is the scope of the key with which all requests are made; "none" lets nobody in.
"""

import os

import schemathesis
from hypothesis import strategies

SCOPE = os.environ["TRACEWAY_FUZZ_SCOPE"]
# What is no well-formed request is refused before anybody is asked who they are.
MALFORMED = {400, 431}
# The keys with which requests are made are the first ones; without them all would be a 401.
OWN_KEYS = {"1", "2", "3"}
ANOTHER_KEY = 999_999
OWN_PROJECTS = {"default", "shop"}
ANOTHER_PROJECT = "another"

# Hypothesis finds out once which characters UTF-8 has, in a second; but each thread that asks
# before it is known would find out for itself.
strategies.characters(codec="utf-8").validate()


@schemathesis.hook
def before_call(
    ctx: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, object]
) -> None:
    """Revoke no key that is in use, and give no project another name that is."""
    path, given = case.operation.path, case.path_parameters
    if path == "/api/keys/{id}" and str(given.get("id")) in OWN_KEYS:
        given["id"] = ANOTHER_KEY
    is_renamed = isinstance(case.body, dict) and "name" in case.body
    if path == "/api/projects/{name}" and given.get("name") in OWN_PROJECTS and is_renamed:
        given["name"] = ANOTHER_PROJECT


@schemathesis.check
def scope_is_kept(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Expect a 401 of everything without a key, and a 403 of what a key's scope is not for."""
    scopes = case.operation.definition.raw.get("x-traceway-scopes")
    if scopes is None or response.status_code in MALFORMED:
        return
    if SCOPE == "none" and response.status_code != 401:
        raise AssertionError(f"{response.status_code} without a key that is good")
    is_described = case.method.lower() == case.operation.method.lower()
    if SCOPE != "none" and SCOPE not in scopes and is_described and response.status_code != 403:
        raise AssertionError(f"{response.status_code} for a key of scope {SCOPE}")
