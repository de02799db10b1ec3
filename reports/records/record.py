"""One measured cell: what was asked, how it ended, what came out, and on what."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from reports.records.cell import Cell
from reports.records.migrate import upgraded

SCHEMA = 3  # 1 had no digest and no disturbed cells; up to 2 ids were made of all parameters
UNIFORM = 3  # since this schema a cell is as `Cell` has it
DIGEST = ',\n"sha256": '  # begins the last line of a record

Status = Literal["ok", "disturbed", "oom", "unsupported", "failed"]
FINAL: tuple[Status, ...] = ("ok", "oom", "unsupported")  # findings; a disturbed or failed cell is measured again
MEASURED: tuple[Status, ...] = ("ok", "disturbed")  # these have metrics and samples


@dataclass(frozen=True)
class Record:
    """cell: what was measured. metrics: single values, units in their names.

    samples: raw lists, from which every statistic is derived later. error: why a cell is not ok, one
    line, for a disturbed one what was seen; a failed one's traceback is in `traceback`.
    """

    cell: Cell
    status: Status
    metrics: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    traceback: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA  # of the file that it was read from

    @property
    def id(self) -> str:
        return self.cell.id

    @property
    def machine(self) -> str:
        """On what it was measured, as in figures."""
        return str(self.provenance["machine"])

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def measured(self) -> bool:
        return self.status in MEASURED

    @property
    def worth(self) -> tuple[int, str]:
        """Of two records of one cell and machine the larger goes before: one that is ok, else a disturbed one, else the
        later.
        """
        rank = ("disturbed", "ok").index(self.status) + 1 if self.measured else 0
        return rank, str(self.provenance["measured_at"])

    def to_json(self) -> str:
        """JSON with one line a field, so that a person can find things and the samples stay out of the way; the last
        line is the SHA-256 of all that stands before it.
        """
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        content |= {"cell": self.cell.to_json(), "schema": SCHEMA}
        text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in content.items())
        return f'{text}{DIGEST}"{_digest(text)}"\n}}\n'

    @classmethod
    def from_json(cls, text: str, name: str | None = None) -> Record:
        """A record of this schema or an earlier one, whose cell has another id here than in its file. Raises ValueError
        where the text is not a whole record, or not that of the cell `name`, an id of its schema; SchemaTooNew where it
        is a later version's.
        """
        try:
            loaded = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(loaded, dict) or not isinstance(loaded.get("schema"), int):
            raise ValueError("no schema number")
        digest = loaded.pop("sha256", None)
        if (digest or loaded["schema"] > 1) and digest != _digest(text.rpartition(DIGEST)[0]):
            raise ValueError("its digest is another: something in it was changed")
        if loaded["schema"] > SCHEMA:
            raise SchemaTooNew(loaded["schema"])
        if set(loaded) != {f.name for f in dataclasses.fields(cls)}:
            raise ValueError("fields are missing or unknown")
        if loaded["status"] not in get_args(Status):
            raise ValueError(f"unknown status {loaded['status']!r}")
        if not isinstance(loaded["cell"], dict) or "id" not in loaded["cell"]:
            raise ValueError("no cell")
        if not isinstance(loaded["provenance"], dict) or not {"machine", "measured_at"} <= set(loaded["provenance"]):
            raise ValueError("no machine or no time in its provenance")
        if name is not None and loaded["cell"]["id"] != name:
            raise ValueError(f"it is the record of {loaded['cell']['id']}")
        if loaded["schema"] < UNIFORM:
            loaded["cell"] = upgraded(loaded["cell"])
        return cls(**{**loaded, "cell": Cell.from_json(loaded["cell"])})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class SchemaTooNew(Exception):
    """A record that a later version of this program wrote."""
