"""Data sets of the hub, which move under their names: what `hub` and `hub:REVISION` mean."""

from __future__ import annotations

from rwkv_core.content import commit

MAIN = "main"


def revision(data: str) -> str | None:
    """Which revision of the hub's data `hub` or `hub:REVISION` means; None for data that lie here."""
    kind, _, revision = data.partition(":")
    return revision or MAIN if kind == "hub" else None


def identified(repo: str, revision: str | None = None) -> tuple[str, str]:
    """A data set of the hub: `hub:` and the commit that the revision stands for, or hub where nobody knows that."""
    sha = commit(repo, revision or MAIN, "dataset")
    name = "hub" if sha == MAIN else f"hub:{sha}"
    return name, name
