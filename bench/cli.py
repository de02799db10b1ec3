"""rwkv-bench: plan, run, report, compare, compare-items, explain, doctor. Parses and calls, nothing else."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from rwkv_core.errors import BadInput

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""RWKV or a Transformer? Measure both on this machine and print the published numbers beside.

    Start with `rwkv-bench doctor`, then `rwkv-bench run configs/pocket.yaml` and
    `rwkv-bench report results/pocket`. A run that was interrupted goes on where it stopped.""",
)

Matrix = Annotated[Path, typer.Argument(help="A matrix file: configs/pocket.yaml, configs/inference-cpu.yaml, ...")]
StoreOption = Annotated[Path | None, typer.Option("--store", help="Folder of records; results/NAME if not given.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder with <task>/<split>.jsonl for the zero-shot tasks; what it lacks comes from the hub."),
]
TokenizerFile = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="A tokenizer.json or rwkv_vocab*.txt, for all models."),
]
Only = Annotated[
    str, typer.Option(help="Only cells whose id contains this, or that have it: --only pythia, --only protocol=fair.")
]


@app.command()
def plan(
    matrix: Matrix,
    store: StoreOption = None,
    only: Only = "",
    data_dir: DataDir = None,
    tokenizer: TokenizerFile = None,
) -> None:
    """List the cells of a matrix and which of them are measured. Measures nothing but the machine's limits, by which
    it says what generation takes at least.
    """
    from bench import estimate, schedule

    selection = schedule.choose(matrix, store, only, _files(data_dir, tokenizer))
    pending = {cell.id for cell in selection.pending}
    for cell in selection.cells:
        expected = estimate.line(cell) if cell.id in pending else ""
        typer.echo(f"{selection.state(cell):12} {cell.id}{expected}")
    counts = f"{len(selection.cells)} cells, {len(selection.pending)} to measure"
    typer.echo(f"{counts}, records in {selection.store.folder}{estimate.total(selection.pending)}")


@app.command()
def run(
    matrix: Matrix,
    store: StoreOption = None,
    only: Only = "",
    data_dir: DataDir = None,
    tokenizer: TokenizerFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure at most this many cells now.")] = None,
    jobs: Annotated[
        int,
        typer.Option(min=1, help="So many cells side by side, sharing the cores or the GPU; what is timed runs alone."),
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be measured, and stop.")] = False,
) -> None:
    """Measure what a matrix asks for and the store does not hold yet.

    Each cell is written as it ends, so that an interrupted run loses at most one. ok, oom and
    unsupported are final; what failed, and what something disturbed, is measured again by the next run. Exits with 1
    if a cell failed.
    """
    from bench import schedule
    from reports.records.record import SCHEMA

    if dry_run:
        plan(matrix, store, only, data_dir, tokenizer)
        return
    selection = schedule.choose(matrix, store, only, _files(data_dir, tokenizer))
    if any(record.schema < SCHEMA for records in selection.records.values() for record in records):
        with selection.store.locked():
            copy = selection.store.migrate()
        typer.echo(
            f"{selection.store.folder}: written by an earlier version; renewed, and copied to {copy} before", err=True
        )
    if not selection.pending:
        typer.echo(f"nothing to measure: all {len(selection.cells)} cells are in {selection.store.folder}")
        return
    try:
        with selection.store.locked() as warning:
            if warning:
                typer.echo(warning, err=True)
            outcome = schedule.execute(selection, limit, jobs)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what was measured is in {selection.store.folder}: the same command goes on", err=True)
        raise typer.Exit(130) from None
    counts = ", ".join(f"{n} {status}" for status, n in outcome.counts.items())
    typer.echo(f"{counts}; records in {selection.store.folder}: now `rwkv-bench report {selection.store.folder}`")
    if outcome.failed:
        raise typer.Exit(1)


def _files(data_dir: Path | None, tokenizer: Path | None) -> dict[str, str]:
    return {key: str(path) for key, path in (("data", data_dir), ("tokenizer", tokenizer)) if path is not None}


@app.command()
def report(
    store: Annotated[list[Path], typer.Argument(help="Folders of records, as in results/pocket.")],
    out: Annotated[Path, typer.Option(help="Folder for the page, tables and figures.")] = Path("reports/out"),
) -> None:
    """Write the page (index.html), tables (Markdown, LaTeX, CSV) and figures (PNG, SVG) from records."""
    from bench.experiments import VERSIONS
    from reports import page

    for line in page.write(store, out, VERSIONS):
        typer.echo(line)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A folder of records: before a change, say.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one: after it.")],
    only: Only = "",
    every: Annotated[bool, typer.Option("--all", help="Show also what is neither worse nor better.")] = False,
    out: Annotated[Path | None, typer.Option(help="A file for all lines, as CSV.")] = None,
) -> None:
    """Two commits, machines or libraries on the same cells: what is slower, larger or worse in B, and what is better.

    Exits with 1 if anything is worse in B, and with 2 if nothing can be compared.
    """
    from reports import compare as comparing

    lines, worse = comparing.stores(first, second, only, every, out)
    for line in lines:
        typer.echo(line)
    if worse:
        raise typer.Exit(1)


@app.command("compare-items")
def compare_items(
    store: Annotated[Path, typer.Argument(help="A folder of records with zero-shot cells.")],
    first: Annotated[str, typer.Argument(help="A model's name, as in rwkv4-169m.")],
    second: Annotated[str, typer.Argument(help="Another one, as in pythia-160m.")],
) -> None:
    """Two models on the same items: who is right where the other is wrong, with intervals and McNemar's test."""
    from reports import page

    for line in page.compare([store], first, second):
        typer.echo(line)


@app.command()
def advise(
    context: Annotated[int, typer.Option(min=1, help="Tokens of context, as in 32768.")],
    memory: Annotated[str, typer.Option(help="For weights, caches and what is worked with, as in 16GB.")],
    batch: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    store: Annotated[
        list[Path] | None, typer.Option("--from", help="Folders of records; if not given, those of results/.")
    ] = None,
    quality_from: Annotated[
        list[Path] | None, typer.Option(help="Folders with zero-shot records; if not given, what was published.")
    ] = None,
) -> None:
    """Which models fit, what they would take, and who wins from which context on: from what was measured here.

    It reads the records of the experiment `decode`, of this machine or, where it has none, the gallery's, and says so.
    """
    from bench import advice

    for line in advice.lines(context, batch, memory, device, store or [], quality_from or []):
        typer.echo(line)


@app.command()
def explain(
    experiment: Annotated[str, typer.Argument(help="An experiment's name; without one all are listed.")] = "",
) -> None:
    """Say what an experiment measures, and each parameter that a matrix may set, with its type, bounds and default."""
    from bench import explain as explanations

    for line in explanations.experiment(experiment) if experiment else explanations.overview():
        typer.echo(line)


@app.command()
def doctor() -> None:
    """Say what this machine can do, and which experiments that allows."""
    from bench import doctor as doctors

    for what, answer in doctors.examine():
        typer.echo(f"{what:18} {answer}")


def main() -> None:
    """Run the command line; what the user got wrong is one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except BadInput as error:
        typer.echo(f"rwkv-bench: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that is a file, no permission
        typer.echo(f"rwkv-bench: {error.filename or 'this machine'}: {error.strerror}", err=True)
        sys.exit(2)
    except MemoryError:
        typer.echo("rwkv-bench: no memory left, not even for the libraries; raise `ulimit -v` or free some", err=True)
        sys.exit(2)
    except UnicodeEncodeError as error:  # of a file's name
        name = error.object.encode(errors="replace").decode()
        typer.echo(
            f"rwkv-bench: {name}: no name for a file where LC_ALL is {error.encoding}; set LC_ALL=C.UTF-8", err=True
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
