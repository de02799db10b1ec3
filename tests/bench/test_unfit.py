"""Which cells are not worth a try: the index finds what a comparison with every record would."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from bench import matrix, run
from bench import unfit as unfit_module
from bench.cells import changed, larger
from bench.unfit import Unfit
from reports.records.cell import Cell
from reports.records.record import Record, Status

AXES = {
    "experiment": "inference",
    "model": ["pythia-14m", "rwkv4-169m"],
    "weights": "random:0",
    "protocol": ["fair", "paper"],
    "new_tokens": [4, 8, 16],
    "batch": [1, 2, 3],
}


def planned(tmp_path: Path, **changes: object) -> list[Cell]:
    path = tmp_path / "matrix.yaml"
    path.write_text(json.dumps({"runs": [AXES | changes]}))
    return matrix.read(path)


def without(cell: Cell, status: Status = "oom") -> Record:
    return run.without_result(cell, status, "so")


def by_comparison(cell: Cell, records: list[Record]) -> Record | None:
    """The first of the records with whose cells this one compares as larger."""
    return next((record for record in records if larger(cell, record.cell)), None)


def test_a_cell_is_refused_exactly_where_it_is_larger_than_one_of_them(tmp_path: Path) -> None:
    cells = planned(tmp_path)
    few = cells[::3]
    failed, oom = {cell: without(cell, "failed") for cell in few}, {cell: without(cell) for cell in few}
    for pair in itertools.permutations(few, 2):
        records = [failed[pair[0]], oom[pair[1]]]
        unfit = Unfit(records)
        for cell in cells:
            refusal, expected = unfit.refusal(cell), by_comparison(cell, records)
            assert (refusal is None) == (expected is None)
            if refusal and expected:
                assert refusal.id == cell.id and refusal.status == expected.status
                assert refusal.error == f"not run: {expected.status} already at {expected.id}"


def test_what_differs_in_more_than_its_size_is_run(tmp_path: Path) -> None:
    smallest = planned(tmp_path)[0]
    longer = changed(smallest, new_tokens=16)
    unfit = Unfit([without(smallest)])
    assert unfit.refusal(longer)
    assert not unfit.refusal(smallest), "what ran out of memory itself may be tried again"
    different = [
        dataclasses.replace(longer, version=longer.version + 1),
        dataclasses.replace(longer, dtype="bfloat16"),
        dataclasses.replace(longer, device="cuda"),
        dataclasses.replace(longer, model=dataclasses.replace(longer.model, weights="random:1")),
        changed(longer, protocol="paper"),
        changed(longer, seed=1),
        dataclasses.replace(longer, params={k: v for k, v in longer.params.items() if k != "batch"}),
        changed(longer, batch=0),
    ]
    assert not any(map(unfit.refusal, different))


def test_records_may_come_one_by_one(tmp_path: Path) -> None:
    cells = {(cell.params["new_tokens"], cell.params["batch"]): cell for cell in planned(tmp_path, protocol="fair")}
    largest, unfit = cells[16, 3], Unfit()
    assert not unfit.refusal(largest)
    for size in ((8, 2), (4, 3), (4, 1)):
        unfit.add(without(cells[size], "failed"))
        refusal = unfit.refusal(largest)
        assert refusal and refusal.error.endswith(cells[8, 2].id), "the first that was too large is named"


def test_a_record_of_an_experiment_that_is_no_more_refuses_nothing(tmp_path: Path) -> None:
    cells = planned(tmp_path)
    record = without(cells[0])
    gone = dataclasses.replace(record, cell=dataclasses.replace(record.cell, experiment="gone"))
    assert not any(map(Unfit([gone]).refusal, cells))


def test_a_look_up_does_not_grow_with_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = planned(tmp_path, model="pythia-14m", seed=list(range(20)))
    unfit = Unfit(map(without, cells))
    compared: list[Cell] = []

    def counted(cell: Cell, smaller: Cell) -> bool:
        compared.append(smaller)
        return larger(cell, smaller)

    monkeypatch.setattr(unfit_module, "larger", counted)
    refused = [cell for cell in cells if unfit.refusal(cell)]
    assert len(cells) == 360 and len(refused) == 320, "all but the smallest of each seed and protocol"
    assert len(compared) == 360, "each with one of 360 records"
