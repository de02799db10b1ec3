"""What no move of code may change: the ids of all cells of all matrices, and the tables of the gallery's records.

`python -m tests.test_golden` writes both anew, for a change that is meant.
"""

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from bench import matrix
from bench.experiments import VERSIONS
from reports import page
from reports.views.table import read, views
from rwkv_core import content

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
IDS = GOLDEN / "cell_ids.txt"
GALLERY = sorted(ROOT.glob("reports/gallery/*/records"))


def ids() -> Iterator[str]:
    """A line for each cell, below its matrix."""
    with mock.patch.multiple(
        content, _of_hub=_unknown, _of_cache=_unknown
    ):  # where branches are now is no fact of ours
        content.commit.cache_clear()
        for path in sorted(ROOT.glob("configs/**/*.yaml")):
            if "\nruns:" in path.read_text(encoding="utf-8"):
                yield f"{path.relative_to(ROOT)}"
                yield from (f"  {cell.id}" for cell in matrix.read(path))
    content.commit.cache_clear()


def _unknown(*_: str) -> None:
    pass


def tables(records: Path) -> Iterator[str]:
    """Every table that the page shows of these records, as CSV below its name."""
    found, _ = page.read([records])
    for view in views(read(found, VERSIONS)):
        for table in view.tables:
            yield f"== {table.name}\n{table.csv()}"


def test_the_ids_of_all_cells_are_as_they_were() -> None:
    assert list(ids()) == IDS.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("records", GALLERY, ids=lambda path: path.parent.name)
def test_the_tables_of_the_gallery_are_as_they_were(records: Path) -> None:
    golden = GOLDEN / f"{records.parent.name}.txt"
    assert "".join(tables(records)).splitlines() == golden.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    IDS.write_text("\n".join(ids()) + "\n", encoding="utf-8")
    for folder in GALLERY:
        (GOLDEN / f"{folder.parent.name}.txt").write_text("".join(tables(folder)), encoding="utf-8")
