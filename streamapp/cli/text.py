"""``streamapp text``: what documents are like, and which are alike."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import group
from streamapp.cli.options import NumberRange, PlaceParam, json_option
from streamapp.cli.output import console, print_json, print_table
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    import pyarrow as pa

    from streamapp.services.text.analyzer import Wanted

#: More files, or longer ones, are for a workflow, which reads them a few at a time.
FILES_MAX, BYTES_MAX = 100_000, 64 << 20
#: Fewer documents are done before a second process has begun.
PROCESSES_LEAST = 500
STDIN = "-"
#: Keywords that a table has room for.
_SHOWN = 3

files_argument = click.argument("files", nargs=-1, required=True, metavar="FILE...")
encoding_option = click.option(
    "--encoding", default="utf-8", show_default=True, metavar="NAME", help="Of the files."
)


@group(examples=["streamapp text analyze *.txt", "streamapp text similar *.txt --threshold 0.7"])
def text() -> None:
    """Count, judge and compare documents."""


@text.command(
    examples=[
        "streamapp text analyze *.txt",
        "streamapp text analyze *.txt --json",
        "streamapp text analyze reports/*.txt --out reports.parquet",
        "cat letter.txt | streamapp text analyze -",
    ]
)
@files_argument
@click.option(
    "--keywords",
    default=10,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="The most of one document; 0: none.",
)
@click.option("--language/--no-language", default=True, help="Tell the language.")
@click.option("--out", type=PlaceParam(), help="A file; its suffix is the format.")
@encoding_option
@json_option
def analyze(
    files: tuple[str, ...], keywords: int, language: bool, out: Path | None, encoding: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Print what each document is like: its size, readability, sentiment and keywords."""
    from streamapp.services.text.analyzer import Wanted

    wanted = Wanted(
        sentiment=True, keywords=keywords > 0, keywords_max=keywords or 1, language=language
    )
    documents = read_documents(files, encoding)
    table = analyzed(documents, wanted)
    if out is not None:
        written = _write(table, out)
        if not as_json:
            click.echo(f"{counted(written, 'row')} in {out}")
            return
    if as_json:
        print_json(table.to_pylist())
        return
    rows = [_cells(row) for row in table.to_pylist()]
    numbers = ("words", "sentences", "flesch", "grade", "sentiment")
    heads = ("document", *numbers, "language", "keywords")
    print_table(heads, rows, right=numbers)


@text.command(examples=["streamapp text similar *.txt", "streamapp text similar *.txt --nearest 3"])
@files_argument
@click.option(
    "--threshold",
    default=0.5,
    show_default=True,
    type=NumberRange(0, 1, True),
    help="The least share of words in common.",
)
@click.option("--nearest", type=click.IntRange(1, 1000), help="Only each one's so many nearest.")
@click.option(
    "--shingle",
    default=1,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Compare runs of so many words.",
)
@encoding_option
@json_option
def similar(
    files: tuple[str, ...], threshold: float, nearest: int | None, shingle: int, encoding: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Print pairs of documents that have words in common, by the share of them (Jaccard)."""
    import pyarrow as pa

    from streamapp.services import call

    documents = pa.table(read_documents(files, encoding))
    found = call(
        "text.similarity", documents, threshold=threshold, nearest_max=nearest, shingle=shingle
    ).to_pylist()
    if as_json:
        print_json(found)
        return
    rows = [(*list(row.values())[:2], f"{row['similarity']:.3f}") for row in found]
    print_table(("document", "similar", "similarity"), rows, right=("similarity",))


def read_documents(files: Sequence[str], encoding: str) -> dict[str, list[str]]:
    """``document_id`` (a file's stem), ``path`` and ``text`` of each file; ``-`` is stdin.

    Raises:
        Refuse: a file cannot be read, or is not in that encoding; or there are too many.
    """
    if len(files) > FILES_MAX:
        raise Refuse(
            "text.files", f"{len(files):,} files are more than {FILES_MAX:,}", "run a workflow"
        )
    texts = [_read(file, encoding) for file in files]
    stems = ["stdin" if file == STDIN else Path(file).stem for file in files]
    return {"document_id": stems, "path": list(files), "text": texts}


def analyzed(documents: dict[str, list[str]], wanted: "Wanted") -> "pa.Table":
    """The documents' names and what was found out; progress is shown on a terminal."""
    import pyarrow as pa
    from rich.progress import Progress

    from streamapp.services.text.many import analyze_texts, empty
    from streamapp.workflow.run.watch import machine_cpus

    texts = documents["text"]
    parts = [empty(wanted)]
    with ExitStack() as stack:
        shown = console(stderr=True)
        bar = stack.enter_context(
            Progress(console=shown, transient=True, disable=not shown.is_terminal)
        )
        task = bar.add_task("documents", total=len(texts))
        processes = machine_cpus() if len(texts) >= PROCESSES_LEAST else 1
        for part in analyze_texts(texts, wanted, processes):
            parts.append(part)
            bar.advance(task, part.num_rows)
    found = pa.concat_tables(parts)
    names = {name: documents[name] for name in ("document_id", "path")}
    return pa.table({**names, **{name: found[name] for name in found.column_names}})


def _read(file: str, encoding: str) -> str:
    try:
        if file == STDIN:
            content = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(BYTES_MAX + 1)
        found = content.decode(encoding)
    except OSError as error:
        fix = "name files that are there, or - for standard input"
        if "*" in file:
            fix = "quote the pattern for a shell that leaves it as it is"
        why = error.strerror or str(error)
        raise Refuse("text.file", f"{file} cannot be read: {why}", fix) from None
    except UnicodeDecodeError as error:
        why = f"{file} is not {encoding}: byte {error.start:,} is {content[error.start]:#04x}"
        raise Refuse("text.encoding", why, "name its encoding: --encoding latin-1") from None
    except LookupError:
        why = f"no encoding is called {encoding!r}"
        raise Refuse("text.encoding", why, "use one such as utf-8 or latin-1") from None
    if len(content) > BYTES_MAX:
        raise Refuse("text.file", f"{file} is larger than {BYTES_MAX >> 20} MiB", "cut it in parts")
    return found


def _write(table: "pa.Table", out: Path) -> int:
    from streamapp.workflow.data import open_output
    from streamapp.workflow.graph.spec import Output

    target = out.absolute()
    declared = Output(source="documents", path=target.name)
    return open_output(declared, target.parent, name="documents").write(table.to_reader())


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    measured = row["readability"] or {}
    shown = {name: f"{value:.1f}" for name, value in measured.items()}
    sentiment = row["sentiment"]
    keywords = ", ".join(one["text"] for one in (row.get("keywords") or ())[:_SHOWN])
    mood = None if sentiment is None else f"{row['sentiment_label']} {sentiment:+.2f}"
    return (
        row["document_id"], row["words"], row["sentences"], shown.get("flesch"),
        shown.get("flesch_kincaid"), mood, row.get("language"), keywords,
    )  # fmt: skip
