"""What every verb shares: examples in its help, suggestions for mistyped names, ``--debug``."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

import click

#: What other programs call the same verb: understood in every group that has the other one.
SYNONYMS = {"ls": "list", "list": "ls", "rm": "remove", "remove": "rm"}
_NUMBERS = (click.types.IntParamType, click.types.FloatParamType)
_SENTENCE_MAX = 400


class _WithExamples(click.Command):
    """A command whose help ends in examples."""

    def __init__(self, *args: Any, examples: Iterable[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params.append(debug_option())
        for param in self.params:
            if isinstance(param, click.Option) and isinstance(param.type, _NUMBERS):
                param.metavar = param.metavar or "N"  # click would say INTEGER RANGE

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Verb(_WithExamples):
    """One verb; made by :func:`command`."""


class VerbGroup(_WithExamples, click.Group):
    """A verb with verbs of its own (``ring stat``).

    One of ``SYNONYMS`` is the verb that is there; a mistyped one gets a suggestion.
    """

    command_class = Verb

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs with the whole first sentence of each: click would cut it to a line."""
        verbs = {name: self.commands[name] for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, verb.get_short_help_str(_SENTENCE_MAX)) for name, verb in verbs.items()]
            )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known = args[0], self.list_commands(ctx)
        if name not in known and SYNONYMS.get(name) in known:
            name = SYNONYMS[name]
        if name not in known and not name.startswith("-"):
            near = get_close_matches(name, known, 1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
            raise click.UsageError(f"{ctx.command_path} has no verb {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, [name, *args[1:]])


def command(
    name: str | None = None, *, examples: Iterable[str], **attributes: Any
) -> Callable[[Callable[..., Any]], Verb]:
    """Make a function a verb: ``@command(examples=["streamapp send messages.csv"])``.

    Args:
        name: the verb, when it is not the function's name.
        examples: command lines that end its help.
        attributes: as for ``click.command``.
    """
    return click.command(name, cls=Verb, examples=examples, **attributes)


def group(
    name: str | None = None, *, examples: Iterable[str], **attributes: Any
) -> Callable[[Callable[..., Any]], VerbGroup]:
    """Make a function a verb with verbs of its own; ``@NAME.command(examples=...)`` adds one."""
    return click.group(name, cls=VerbGroup, examples=examples, **attributes)


def debug_option() -> click.Option:
    """``--debug``, anywhere on the line; :func:`streamapp.cli.app.main` looks for it."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        hidden=True,
        help="Show the traceback of an unexpected error.",
    )
