"""``streamapp gateway|worker|store|terminal``: one process of the four, with friendly options."""

import asyncio

import click

from streamapp.cli.framework import command, group
from streamapp.cli.options import settings_options
from streamapp.core.config import Settings

_COMMON = ("broker", "topics_dir", "log_level", "drain_s")


@command(
    examples=[
        "streamapp gateway",
        "streamapp gateway --gateway-host 0.0.0.0 --token env:SHOP_TOKEN",
        "streamapp gateway --broker kafka+batch://kafka:9092",
    ],
)
@settings_options("gateway_host", "gateway_port", "token", "body_bytes_max", *_COMMON)
def gateway(settings: Settings) -> None:
    """Take events over HTTP and answer when the log has them.

    Stateless: run as many as you like.  SIGTERM stops taking, finishes what was accepted, exits.
    """
    import logging

    from streamapp.compose import serve_gateway
    from streamapp.core.cycles import end_at_once

    end_at_once()
    logging.basicConfig(level=settings.log_level.upper())
    asyncio.run(serve_gateway(settings, lambda url: click.echo(f"listening on {url}", err=True)))


@command(
    examples=[
        "streamapp worker",
        "streamapp worker --threads 4 --embedding-model bge-m3.onnx",
        "streamapp worker --ring direct               # it writes the ring, no terminal",
        "faust -A streamapp.worker worker             # the same",
    ],
)
@settings_options(
    "worker_port",
    "models_dir",
    "models_cache",
    "embedding_model",
    "tokenizer_model",
    "threads",
    "batch_events_max",
    "ring",
    "ring_path",
    "ring_frames",
    *_COMMON,
)
def worker(settings: Settings) -> None:
    """Enrich events: run the workflow's stages on what came in.

    Workers share the partitions of events.raw; each keeps its own copy of the models.  With --ring
    direct this one writes the host's ring too, the model its vectors into it, and no terminal runs.
    """
    _become("worker", settings, settings.worker_port)


@group(
    invoke_without_command=True,
    examples=[
        "streamapp store",
        "streamapp store --db-path /data/events.duckdb --flight-port 9400",
        "faust -A streamapp.store worker                      # the same",
        "streamapp store verify",
    ],
)
@settings_options(
    "store",
    "db_path",
    "parquet_url",
    "flight_host",
    "flight_port",
    "flight_cert_file",
    "flight_key_file",
    "store_port",
    "token",
    "models_dir",
    *_COMMON,
)
def store(settings: Settings) -> None:
    """Store enriched events in DuckDB or Parquet, exactly once, and answer SQL over Arrow Flight.

    The commands below check, copy and thin out what is stored, while it runs or not.
    """
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        _become("store", settings, settings.store_port)
    elif any(value is not None for value in context.params.values()):
        verb = f"{context.command_path} {context.invoked_subcommand}"
        raise click.UsageError(f"write the options behind the verb: {verb} --…", context)


@command(
    examples=[
        "streamapp terminal",
        "streamapp terminal --ring-frames 65536",
        "faust -A streamapp.terminal worker                   # the same",
    ],
)
@settings_options("ring_path", "ring_frames", "ring", "terminal_port", "models_dir", *_COMMON)
def terminal(settings: Settings) -> None:
    """Mirror enriched events into this host's ring, where numpy, torch and C read them."""
    _become("terminal", settings, settings.terminal_port)


def _become(module: str, settings: Settings, port: int) -> None:
    from streamapp.compose import exec_faust

    exec_faust(module, settings, port)
