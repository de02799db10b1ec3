"""What experiments run: tests/golden/sources.json has their versions, and a hash of every source that a number may
depend on, in which comments, docstrings and formatting do not count.

`python -m tests.versions` writes it anew for experiments whose VERSION was raised and for new ones, and with
`--same EXPERIMENT ...` for those of which no number changes.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bench.experiments import EXPERIMENTS, VERSIONS
from tests.test_layers import imported

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden" / "sources.json"
PATTERNS = ("rwkv_core/**/*", "evals/**/*", "bench/speed/*", "bench/instruments/*", "bench/run.py")
KINDS = (".py", ".c", ".h")
RIG, LOADING = "bench.run", "rwkv_core.load"  # measures every cell; loads models, where an experiment is given one
C_TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\])*"|\w+|\S)', re.S)  # the group: all but comments
COMMAND = "python -m tests.versions"


class Sources:
    """The sources of a tree by name: modules as they are imported, others by their path. hashes: of each."""

    def __init__(self, root: Path) -> None:
        files = sorted(
            path for pattern in PATTERNS for path in root.glob(pattern) if path.suffix in (".py", ".c", ".h")
        )
        self.paths = {_name(path.relative_to(root)): path for path in files}
        self.hashes = {name: _hash(path.suffix, path.read_text(encoding="utf-8")) for name, path in self.paths.items()}
        self._next = {name: self._runs(name) for name in self.paths}

    def reached(self, begin: str, without: str = "") -> set[str]:
        """All that a module runs: what it imports, inside functions too, the packages around each, and what lies beside
        it in C.
        """
        reached, waiting = set(), {begin}
        while waiting:
            name = waiting.pop()
            if name in self.paths and name not in reached and name != without:
                reached.add(name)
                waiting |= self._next[name]
        return reached

    def of(self, experiment: str) -> set[str]:
        """What the numbers of an experiment may depend on."""
        needs = EXPERIMENTS[experiment]
        return self.reached(needs.run.__module__) | self.reached(RIG, "" if needs.subject == "model" else LOADING)

    def _runs(self, name: str) -> set[str]:
        path = self.paths[name]
        if path.suffix != ".py":
            return set()
        names = imported(path)
        around = {name.rpartition(".")[0] for name in (name, *names)}
        return names | around | {key for key, other in self.paths.items() if other.parent == path.parent and "/" in key}


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__") if path.suffix == ".py" else str(path)


@functools.cache  # by text: tests look at several trees, of which one file or none differs
def _hash(suffix: str, text: str) -> str:
    said = json.dumps(_plain(ast.parse(text))) if suffix == ".py" else " ".join(filter(None, C_TOKENS.findall(text)))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """What a syntax tree says, the same in every Python: nothing of where, nor of docstrings and VERSION."""
    if isinstance(node, list):
        return [_plain(one) for one in node if not _silent(one)]
    if isinstance(node, ast.AST):
        return [type(node).__name__, *((key, _plain(value)) for key, value in ast.iter_fields(node) if value != [])]
    return repr(node)


def _silent(node: Any) -> bool:
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "VERSION"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def state(sources: Sources) -> dict[str, Any]:
    """What the file holds of a tree."""
    names = sorted(set().union(*map(sources.of, EXPERIMENTS)))
    return {"versions": VERSIONS, "sources": {name: sources.hashes[name] for name in names}}


def asked(sources: Sources, golden: Mapping[str, Any]) -> dict[str, str]:
    """For each experiment that runs something else than when the file was written, under the same version, a line that
    says what it is and what to do.
    """
    changed = {name for name, digest in sources.hashes.items() if golden["sources"].get(name) != digest}
    lines = {}
    for experiment, version in VERSIONS.items():
        if golden["versions"].get(experiment) == version and (its := sorted(changed & sources.of(experiment))):
            lines[experiment] = (
                f"{experiment} {version} runs other sources ({', '.join(its)}): raise its VERSION if a number can "
                f"change and call `{COMMAND}`, or say that none does: `{COMMAND} --same {experiment}`"
            )
    return lines


def renew(sources: Sources, golden: Path, same: Collection[str]) -> list[str]:
    """Write the file anew; or, where some lines are of experiments that are not in `same`, return these."""
    lines = asked(sources, json.loads(golden.read_text(encoding="utf-8")))
    if left := [line for experiment, line in lines.items() if experiment not in same]:
        return left
    golden.write_text(json.dumps(state(sources), indent=1) + "\n", encoding="utf-8")
    return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--same", nargs="+", default=[], choices=EXPERIMENTS, metavar="EXPERIMENT")
    same = parser.parse_args().same
    sys.exit("\n".join(renew(Sources(ROOT), GOLDEN, same)) or None)
