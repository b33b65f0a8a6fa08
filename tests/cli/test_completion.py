import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")]
)
def test_the_script_of_each_shell(run, shell, word):
    result = run("completion", shell)
    assert result.code == 0
    assert "_STREAMAPP_COMPLETE" in result.out
    assert word in result.out


def test_an_unknown_shell_is_refused(run):
    result = run("completion", "tcsh")
    assert result.code == 2
    assert "'bash', 'zsh', 'fish'" in result.err


def test_it_completes_verbs_and_options():
    def complete(*words: str) -> list[str]:
        env = {
            **os.environ,  # the child's
            "_STREAMAPP_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("streamapp", *words)),
            "COMP_CWORD": str(len(words)),
        }
        command = [sys.executable, "-m", "streamapp.cli"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("que") == ["query"]
    assert complete("ring", "ta") == ["tail"]
    assert "--flight-port" in complete("query", "--fl")
