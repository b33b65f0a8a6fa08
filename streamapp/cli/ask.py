"""``streamapp ask``: put what the workflow is unsure of to a language model; try that model."""

import asyncio

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import harmless, print_json, print_table
from streamapp.core.clock import monotonic_s
from streamapp.core.config import Settings

_COMMON = ("broker", "topics_dir", "llm_base_url", "llm_model", "llm_thinking")


@group(
    invoke_without_command=True,
    examples=[
        "LLM_BASE_URL=http://127.0.0.1:1234/v1 streamapp ask",
        'streamapp ask try "I want my money back"',
    ],
)
@settings_options(*_COMMON, "llm_calls_max", "ask_port", "log_level", "drain_s")
def ask(settings: Settings) -> None:
    """Ask a language model about messages whose intent the workflow is unsure of.

    Reads events.ask, writes events.answers; the store joins them: select * from answered.  Events
    never wait for it.  Where there is no answer in time the local one is written down as it was,
    with source fallback.  Run as many as you like: they share the partitions.
    """
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        import logging

        from streamapp.ask import run

        logging.basicConfig(level=settings.log_level.upper())
        asyncio.run(run(settings, lambda what: click.echo(f"asking {what}", err=True)))
    elif any(value is not None for value in context.params.values()):
        verb = f"{context.command_path} {context.invoked_subcommand}"
        raise click.UsageError(f"write the options behind the verb: {verb} --…", context)


@ask.command(
    "try",
    examples=[
        'streamapp ask try "where is my order"',
        'streamapp ask try "my order?" --llm-base-url http://127.0.0.1:8080/v1 --json',
    ],
)
@click.argument("text")
@json_option
@settings_options(*_COMMON)
def try_(settings: Settings, text: str, as_json: bool) -> None:
    """Ask the declared model once for a text's intent, and show how it was made to answer.

    Kept answers are not looked at.  The mode is the surest way to JSON that the server has:
    json_schema, json_object, tool, prompt.
    """
    from streamapp.ask import tried

    started_s = monotonic_s()
    answer = asyncio.run(tried(settings, text))
    took_s = monotonic_s() - started_s
    said = {
        **answer.value,
        "model": answer.model,
        "mode": answer.mode,
        "calls": answer.attempts,
        "tokens_in": answer.tokens_in,
        "tokens_out": answer.tokens_out,
        "reasoning_chars": answer.reasoning_chars,
        "seconds": round(took_s, 3),
    }
    if as_json:
        print_json(said)
        return
    print_table(("what", "said"), [(name, harmless(str(value))) for name, value in said.items()])
