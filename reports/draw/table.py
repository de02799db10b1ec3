"""A table and its four forms: HTML, Markdown, LaTeX (booktabs), CSV."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Table:
    """name: its file name. frame: display strings, one column a heading. note: what a reader must know."""

    name: str
    title: str
    frame: pd.DataFrame
    note: str = ""
    prose: bool = False  # cells of sentences, which may wrap

    def html(self) -> str:
        """Escaped; numbers are aligned by the page's style."""
        kind = "prose" if self.prose else "numbers"
        return self.frame.to_html(index=False, border=0, escape=True, justify="left", classes=kind)

    def markdown(self) -> str:
        heads = list(self.frame.columns)
        lines = [heads, ["---"] * len(heads), *self.frame.astype(str).to_numpy().tolist()]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def latex(self) -> str:
        caption = _latex_escape(f"{self.title}. {self.note}".strip())
        tabular = self.frame.to_latex(index=False, escape=True, column_format="l" * len(self.frame.columns))
        below = f"\\caption{{{caption}}}\n\\label{{tab:{self.name}}}\n"
        return f"\\begin{{table}}\n\\centering\n{tabular}{below}\\end{{table}}\n"

    def csv(self) -> str:
        return self.frame.to_csv(index=False)


def _latex_escape(text: str) -> str:
    return "".join({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "^": r"\^{}"}.get(c, c) for c in text)
