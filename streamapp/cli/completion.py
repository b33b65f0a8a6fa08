"""``streamapp completion``: what makes a shell complete our verbs and options."""

import click
from click.shell_completion import get_completion_class

from streamapp.cli.framework import command

SHELLS = ("bash", "zsh", "fish")


@command(
    examples=[
        'eval "$(streamapp completion bash)"                 # this bash',
        "streamapp completion bash >> ~/.bashrc              # every bash",
        "streamapp completion zsh >> ~/.zshrc",
        "streamapp completion fish > ~/.config/fish/completions/streamapp.fish",
    ],
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete verbs and options."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click has all three
    root = ctx.find_root().command
    # source_vars and source_template: source() itself would start a bash to ask its version.
    script = kind(root, {}, "streamapp", "_STREAMAPP_COMPLETE")
    click.echo(script.source_template % script.source_vars())
