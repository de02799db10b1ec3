"""Documents: what is made of rows is up to date, and a mark that names nothing is refused."""

import re

import pytest

from bench import documents
from rwkv_core.errors import BadInput


def test_there_is_no_document_of_a_store_that_is_gone() -> None:
    assert sorted(path.stem for path in documents.RESULTS.glob("*.md")) == documents.stores()


def test_a_marked_part_is_made_anew_and_the_rest_stays() -> None:
    mark = "<!-- rows of pocket-cpu: table summary -->\n"
    text = f"before\n{mark}| by hand |\n<!-- end of rows -->\nafter\n"
    made = documents.with_rows(text)
    assert made.startswith(f"before\n{mark}**Generation in short**") and made.endswith("<!-- end of rows -->\nafter\n")
    assert "by hand" not in made and documents.with_rows(made) == made


@pytest.mark.parametrize(
    "mark,said",
    [
        ("pocket-cpu: table sumary", "did you mean summary?"),
        ("pocket-cpu: figure summary", "asks pocket-cpu for 'figure summary'"),
        ("poket-cpu: table summary", "did you mean pocket-cpu?"),
    ],
)
def test_a_mark_that_names_nothing_is_refused(mark: str, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        documents.with_rows(f"<!-- rows of {mark} -->\n<!-- end of rows -->")


def test_links_and_figures_of_all_documents_are_there() -> None:
    for path in [documents.ROOT / "README.md", *documents.DOCS.glob("**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_a_hand_written_page_is_short() -> None:
    assert len((documents.ROOT / "README.md").read_bytes()) <= 6 * 1024
    for path in documents.DOCS.glob("*.md"):
        assert len(path.read_text(encoding="utf-8").split()) < 1500, path.name
