"""What records are from: changed trees or commits, which versions of their experiments, which days."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.records.record import Record

SHOWN = 2  # of several commits and the like


@dataclass(frozen=True)
class Origin:
    """Numbers of records, days as 2026-01-31.

    records: all of them.
    unchanged: from a tree that is what its commit holds. changed: from one that is not. Of the rest no commit is known.
    commits: of the unchanged trees.
    versions: of each experiment and version, the present one of the experiment, where it is known, and the records.
    unnamed: with a processor of x86 that is named without family and model, as several are that share a name.
    first, last: days of measurement. machines: their names.
    """

    records: int
    unchanged: int
    changed: int
    commits: int
    versions: Mapping[tuple[str, int, int | None], int]
    unnamed: int
    first: str
    last: str
    machines: Sequence[str]

    @property
    def days(self) -> str:
        return self.first if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def experiments(self) -> str:
        """Each experiment with its version, the present one where that is another, and the number of records."""
        return "; ".join(f"{_version(key)}: {count}" for key, count in self.versions.items())

    @property
    def sentences(self) -> str:
        """All of it in words, less what is 0."""
        unknown = self.records - self.unchanged - self.changed
        trees = [
            f"{self.unchanged} from committed code at {_counted(self.commits, 'commit')}" if self.unchanged else "",
            f"{self.changed} from code with uncommitted changes" if self.changed else "",
            f"{unknown} from code that no commit names" if unknown else "",
        ]
        text = f"{_counted(self.records, 'record')}: {', '.join(filter(None, trees))}"
        if older := {key: count for key, count in self.versions.items() if _older(key)}:
            named = "; ".join(map(_version, older))
            count = sum(older.values())
            of = "is of an older version of its" if count == 1 else "are of an older version of their"
            text += f"; {count} {of} experiment ({named})"
        text += f". Measured {'on' if self.first == self.last else 'from'} {self.days} on {'; '.join(self.machines)}."
        if self.unnamed:
            text += f" {self.unnamed} name the processor by its brand alone, which several share."
        return text


def of(records: Iterable[Record], versions: Mapping[str, int]) -> Origin:
    """versions: the present one of each experiment. Raises ValueError where there is no record."""
    records = list(records)
    facts = [record.provenance for record in records]
    days = [str(one["measured_at"])[:10] for one in facts]
    clean = [one["commit"] for one in facts if one["dirty"] is False]
    counts = Counter((record.cell.experiment, record.cell.version) for record in records)
    return Origin(
        len(records),
        len(clean),
        sum(one["dirty"] is True for one in facts),
        len(set(clean)),
        {(name, version, versions.get(name)): count for (name, version), count in sorted(counts.items())},
        sum("x86" in one["platform"] and "(family " not in one["cpu"] for one in facts),
        min(days),
        max(days),
        sorted({str(one["machine"]) for one in facts}),
    )


def beside(first: Iterable[Record], second: Iterable[Record]) -> str:
    """In what the code, the machines and the libraries of A and B differ, and in what they do not."""
    facts, others = _facts(first), _facts(second)
    names = list(dict.fromkeys([*facts, *others]))
    differing = [name for name in names if facts[name] != others[name]]
    said = [f"{name} {_some(facts[name])} (A), {_some(others[name])} (B)" for name in differing]
    same = [f"{name} {_some(facts[name])}" for name in ("commit", "machine") if name not in differing]
    return f"A and B differ in {'; '.join(said) or 'nothing'}." + (f" Both: {'; '.join(same)}." if same else "")


def _facts(records: Iterable[Record]) -> defaultdict[str, set[str]]:
    """What a number may depend on, by what it is called: all that the records say of it."""
    facts: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        p, model = record.provenance, record.cell.model
        facts["commit"].add(f"{(p['commit'] or 'none')[:12]}{' with changes' if p['dirty'] else ''}")
        named = {key: p.get(key) for key in ("machine", "platform", "python", "waits")}
        named |= {"driver": ", ".join(gpu.get("driver", "") for gpu in p["gpus"]), **p["versions"]}
        named[f"version of {record.cell.experiment}"] = record.cell.version
        if model is not None:
            named |= {f"weights of {model.name}": p.get("weights_fingerprint")}
            named |= {f"attention of {model.name}": p.get("attention")}
        for name, value in named.items():
            if value:
                facts[name].add(str(value))
    return facts


def _some(values: set[str]) -> str:
    shown = sorted(values)[:SHOWN] or ["none"]
    return " and ".join(shown) + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def _older(key: tuple[str, int, int | None]) -> bool:
    _, version, present = key
    return present is not None and version < present


def _version(key: tuple[str, int, int | None]) -> str:
    name, version, present = key
    return f"{name} {version}" + (f", now {present}" if _older(key) else "")


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
