"""What the gallery's records say, as documents: docs/results, a page a store, and the marked parts of other pages.

`python -m bench.documents` (`make docs`) writes them. A marked part begins with a comment that says what it is made
from, as `<!-- rows of pocket-cpu: sentences generation-fair; table summary -->`, and ends with `<!-- end of rows -->`.
The sentences that hold certain words are `sentences recall about question first`; the first such paragraph of a
section's text is `text context about below`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from bench.experiments import VERSIONS
from reports import page
from reports.records.provenance import ROOT
from reports.sentences import of_page
from reports.views import sources, table
from reports.views.view import View
from rwkv_core.errors import BadInput, did_you_mean
from rwkv_core.files import write_atomically

DOCS = ROOT / "docs"
RESULTS = DOCS / "results"
SHOWN = 2  # tables of a section
GOALS = "-goals"  # behind the names of tables of what was to be reached
MARKED = re.compile(r"(<!-- rows of ([\w-]+): ([^>]*?) -->\n).*?(<!-- end of rows -->)", re.DOTALL)
HEAD = (
    "# {store}\n\nMade by `make docs` from `reports/gallery/{store}/records`, not by hand. Each section shows its "
    "first tables and its goals; `make gallery` writes the whole page with every table and figure. In brackets: (a to "
    "b) is a 95 % interval, (a-b) the least and the largest; ± is one standard error.\n\n{origin}\n"
)


def stores() -> list[str]:
    """The names of the gallery's stores."""
    return sorted(folder.parent.name for folder in ROOT.glob("reports/gallery/*/records"))


@functools.cache
def sections(store: str) -> list[tuple[View, list[str]]]:
    """Each section of a store's page and its sentences, less those of published facts alone."""
    if store not in stores():
        raise BadInput(f"the gallery has no {store}{did_you_mean(store, stores())}")
    records, _ = page.read([ROOT / "reports" / "gallery" / store / "records"])
    results = table.read(records, VERSIONS)
    shown = list(table.views(results))
    published = {view.name for view in sources.SECTION.views(results)}
    pairs = zip(shown, of_page([view.comparisons for view in shown]), strict=True)
    return [(view, sentences) for view, sentences in pairs if view.name not in published]


def of_store(store: str) -> str:
    """The document of a store."""
    (origin,) = (view.text[0] for view, _ in sections(store) if view.name == "provenance")
    parts = [HEAD.format(store=store, origin=origin)]
    for view, sentences in sections(store):
        parts.append(f"## {view.title}\n")
        parts += [_list(sentences)] if sentences else []
        parts += [f"{paragraph}\n" for paragraph in view.text]
        shown = [one for number, one in enumerate(view.tables) if number < SHOWN or one.name.endswith(GOALS)]
        parts += [one.markdown() for one in shown]
        figures = [(picture, DOCS / "figures" / store / f"{picture.name}.png") for picture in view.pictures]
        parts += [
            f"![{picture.title}](../figures/{store}/{path.name})\n" for picture, path in figures if path.is_file()
        ]
    return "\n".join(parts)


def with_rows(text: str) -> str:
    """A hand-written document, its marked parts made anew. Raises BadInput where a mark names what is not there."""
    return MARKED.sub(lambda match: f"{match[1]}{_rows(match[2], match[3])}{match[4]}", text)


def _rows(store: str, parts: str) -> str:
    of_view = {view.name: sentences for view, sentences in sections(store)}
    of_table = {one.name: one.markdown() for view, _ in sections(store) for one in view.tables}
    of_text = {view.name: [f"{paragraph}\n" for paragraph in view.text] for view, _ in sections(store)}
    written = []
    for part in parts.split("; "):
        kind, _, rest = part.partition(" ")
        name, _, about = rest.partition(" about ")
        of_sentences = {key: _list([one for one in sentences if about in one]) for key, sentences in of_view.items()}
        of_first = {key: next((one for one in texts if about in one), "") for key, texts in of_text.items()}
        among = {"sentences": of_sentences, "table": of_table, "text": of_first}.get(kind, {})
        if not among.get(name):
            raise BadInput(f"a document's mark asks {store} for {part!r}, which it has not{did_you_mean(name, among)}")
        written.append(among[name])
    return "\n".join(written)


def _list(sentences: list[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)


def documents() -> Iterator[tuple[Path, str]]:
    """Each document that is made or has a marked part, and the text that it must have."""
    for store in stores():
        yield RESULTS / f"{store}.md", of_store(store)
    for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]:
        if MARKED.search(text := path.read_text(encoding="utf-8")):
            yield path, with_rows(text)


if __name__ == "__main__":
    for path, text in documents():
        write_atomically(path, text)
        print(path.relative_to(ROOT))
