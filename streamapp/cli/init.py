"""``streamapp init``: a project of one's own: topics, models, Procfile and a sample stage."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from streamapp.cli.framework import command
from streamapp.cli.options import PlaceParam
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse
from streamapp.topics.catalogue import defaults

SAMPLE_STAGE = "word_count"

_SETTINGS = """\
# Every setting has one name: here, in .env and the environment (STREAMAPP_GATEWAY_PORT), and as a
# flag (--gateway-port).  `streamapp config show` lists them all and where each value came from.
home = ".streamapp"
topics_dir = "topics"
models_dir = "models"
"""

_PROCFILE = """\
gateway: streamapp gateway
worker: streamapp worker
store: streamapp store
terminal: streamapp terminal
"""

_IGNORED = """\
.streamapp/
.env
.venv/
__pycache__/
*.egg-info/
"""

_README = """\
# {name}

    streamapp up                                   # gateway, worker, store and terminal, here
    curl -H 'Content-Type: application/json' -d '{{"message": "hello"}}' http://127.0.0.1:9382/ingest
    streamapp query "select text, language, intent, sentiment from events"
    streamapp ring tail --follow

| file | what it says |
|---|---|
| `streamapp.toml` | settings; secrets such as `STREAMAPP_TOKEN` go into `.env` |
| `topics/*.toml` | the log's topics: partitions, sizes, retention |
| `topics/workflow.toml` | which stages run, with their options |
| `models/` | which models there are; `streamapp models pull` fetches their files |
| `stages/{stage}/` | a stage of your own, with its test |
| `Procfile` | the four processes, for honcho, foreman or overmind |

Your stage runs once it is installed and the workflow names it:

    pip install -e stages/{stage}
    streamapp stage ls
"""


@command(
    examples=[
        "streamapp init shop && cd shop && streamapp up",
        "streamapp init . --missing",
    ],
)
@click.argument("folder", metavar="DIR", type=PlaceParam())
@click.option("--missing", is_flag=True, help="Write only the files that are not there.")
def init(folder: Path, missing: bool) -> None:
    """Write a project into DIR: settings, topics, models, Procfile and a sample stage.

    Nothing is ever overwritten.  All that is written has the values of the installation; change
    what you like.
    """
    files = project_files(folder.absolute().name)
    there = [name for name in files if (folder / name).exists()]
    if there and not missing:
        raise Refuse(
            "init.exists",
            f"{folder / there[0]} is there already"
            + (f", and {len(there) - 1} more" if len(there) > 1 else ""),
            "choose another folder, or add --missing to write only what is not there",
        )
    wanted = {name: content for name, content in files.items() if name not in there}
    _write(folder, wanted)
    click.echo(f"wrote {counted(len(wanted), 'file')} into {folder}")
    there_now = folder.resolve() == Path.cwd()
    click.echo("next: streamapp up" if there_now else f"next: cd {folder} && streamapp up")


def project_files(name: str) -> dict[str, bytes]:
    """Everything a project begins with: path below its folder to content."""
    files = {
        "streamapp.toml": _SETTINGS.encode(),
        "Procfile": _PROCFILE.encode(),
        ".gitignore": _IGNORED.encode(),
        "README.md": _README.format(name=name, stage=SAMPLE_STAGE).encode(),
    }
    for kind in ("topics", "models"):
        files |= _tree(defaults(kind), kind)
    return files | _sample_stage()


def _sample_stage() -> dict[str, bytes]:
    from streamapp.workflow.scaffold import scaffold

    with TemporaryDirectory() as scratch:
        scaffold(SAMPLE_STAGE, Path(scratch))
        return _tree(Path(scratch), "stages")


def _tree(folder: Path, name: str) -> dict[str, bytes]:
    """All files below a folder, under another name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in paths
        if "__pycache__" not in path.parts
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
        except OSError as error:
            raise Refuse(
                "init.write", f"cannot write {path}: {error.strerror}", "choose another folder"
            ) from None
