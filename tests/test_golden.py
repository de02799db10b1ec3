"""What no move of code may change: the ids of all cells of all matrices, and the tables of the gallery's records.

`python -m tests.test_golden` writes both anew, for a change that is meant.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

from bench import documents, matrix
from bench.experiments import VERSIONS
from reports.views import sources
from reports.views.table import read
from reports.views.view import View
from rwkv_core import content

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
IDS = GOLDEN / "cell_ids.txt"
PUBLISHED = GOLDEN / "published.txt"


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


def tables(views: Iterable[View]) -> str:
    """Every table of them as CSV below its name."""
    return "".join(f"== {table.name}\n{table.csv()}" for view in views for table in view.tables)


def published() -> Iterator[View]:
    """What every page shows of published facts alone."""
    return sources.SECTION.views(read([], VERSIONS))


def of_store(store: str) -> str:
    return tables(view for view, _ in documents.sections(store))


def test_the_ids_of_all_cells_are_as_they_were() -> None:
    assert list(ids()) == IDS.read_text(encoding="utf-8").splitlines()


def test_tables_and_documents_are_what_the_records_say() -> None:
    """Of all stores in one test, since each is read once a process and takes seconds."""
    for store in documents.stores():
        golden = (GOLDEN / f"{store}.txt").read_text(encoding="utf-8")
        assert of_store(store).splitlines() == golden.splitlines(), store
    documented = dict(documents.documents())
    assert documents.ROOT / "README.md" in documented
    assert {path.stem for path in documented if path.parent == documents.RESULTS} == {*documents.stores()}
    for path, text in documented.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: `make docs` writes it anew"


def test_what_is_published_is_as_it_was() -> None:
    assert tables(published()).splitlines() == PUBLISHED.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    IDS.write_text("\n".join(ids()) + "\n", encoding="utf-8")
    PUBLISHED.write_text(tables(published()), encoding="utf-8")
    for name in documents.stores():
        (GOLDEN / f"{name}.txt").write_text(of_store(name), encoding="utf-8")
