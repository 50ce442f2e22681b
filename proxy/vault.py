"""The providers' keys, which calls go out with whose caller sent one of ours.

Invariant: a key comes out of here only to go upstream.
"""

from collections.abc import Mapping

from storage.grants import Project


class Vault:
    """The keys of each project and upstream."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def key(self, project: Project, upstream: str) -> str | None:
        """Give the key for calls of a project to an upstream; None where there is none."""
        variable = f"TRACEWAY_PROVIDER_KEY_{_upper(upstream)}"
        for name in (f"{variable}__{_upper(project.name)}", variable):
            if key := self._environ.get(name, "").strip():
                return key
        return None


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
