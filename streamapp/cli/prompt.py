"""Lines typed at a prompt: statements cut out of them, a history, and completion."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

HISTORY_LINES_MAX = 2000

#: Halves of a pair, which are no text that DuckDB takes.
_SURROGATES = re.compile("[\ud800-\udfff]")
#: The word before the one that is completed, where only tables make sense.
_WANTS_TABLE = re.compile(r"(\b(from|join|describe|summarize)\s+|,\s*|\\d\s+)$", re.IGNORECASE)
_KEYWORDS = """all and any as asc between by case cast cross desc describe distinct else end except
    exclude exists explain false filter from full group having ilike in inner intersect interval
    into is join lateral left like limit not null nulls offset on or order outer over partition
    qualify recursive right select similar summarize then true union unnest using values when where
    window with""".split()  # noqa: SIM905  # a list of them would be 60 lines


def split(text: str) -> tuple[list[str], str]:
    """The statements that a semicolon ends, without it, and what follows the last.

    Semicolons in strings, quoted names, dollar quotes and comments end nothing; what is not closed
    runs to the end.  DuckDB's own lexer says so.
    """
    found, start, is_empty = [], 0, True
    for at, kind in _tokens(text):
        if text[at] == ";" and kind == "operator":
            if not is_empty:
                found.append(text[start:at].strip())
            start, is_empty = at + 1, True
        elif kind != "comment":
            is_empty = False
    return found, text[start:]


def has_words(text: str) -> bool:
    """Whether there is something beside comments and blanks."""
    return any(kind != "comment" for _, kind in _tokens(text))


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """Where each token of DuckDB's begins, and its kind."""
    import duckdb

    plain = _SURROGATES.sub("\ufffd", text)
    encoded, at, at_bytes = plain.encode(), 0, 0
    for first, kind in duckdb.tokenize(plain):  # in bytes
        at += len(encoded[at_bytes:first].decode())
        at_bytes = first
        yield at, kind.name


class Names(NamedTuple):
    """What SQL can name: relations (those with parameters end in a parenthesis) and functions."""

    columns: Mapping[str, list[str]]
    functions: list[str]

    def matching(self, before: str, word: str) -> list[str]:
        """Names and keywords that begin like ``word``, which stands after ``before``."""
        if before.endswith("."):
            owner = re.findall(r"\w+", before)[-1:]
            known = self.columns.get("".join(owner)) or self._all_columns()
            candidates: Iterable[str] = known
        elif _WANTS_TABLE.search(before):
            candidates = self.columns
        else:
            words = [one.upper() if word.isupper() else one for one in _KEYWORDS]
            candidates = [*self.columns, *self._all_columns(), *self.functions, *words]
        start = word.lower()
        return sorted({name for name in candidates if name.lower().startswith(start)})

    def _all_columns(self) -> list[str]:
        return sorted({name for columns in self.columns.values() for name in columns})


class Prompt:
    """Lines from a terminal, with readline where Python has it.

    Args:
        history: the file that keeps them.
        names: what Tab completes; called at the first Tab.
        warn: told when the history cannot be kept.
    """

    def __init__(
        self, history: Path, names: Callable[[], Names], warn: Callable[[str], None]
    ) -> None:
        self._history = history
        self._names = names
        self._warn = warn
        self._matches: list[str] = []
        try:
            import readline
        except ImportError:
            warn("this Python has no readline: no history, no completion")
            return
        self._readline = readline
        readline.set_auto_history(False)
        readline.set_completer(self._complete)
        readline.set_completer_delims(" \t\n()[]{}<>=+-*/%|&,;:'\"`~!@#^.")
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        try:
            history.parent.mkdir(parents=True, exist_ok=True)
            history.touch(mode=0o600)
            readline.read_history_file(history)
        except OSError as error:
            warn(f"the history is not kept: {history}: {error.strerror}")

    def line(self, prompt: str) -> str:
        """The next line.

        Raises:
            EOFError: Ctrl-D.
            KeyboardInterrupt: Ctrl-C.
        """
        return input(prompt)

    def remember(self, text: str) -> None:
        """Keep a statement as one entry (one line, unless a comment needs its own)."""
        if not hasattr(self, "_readline"):
            return
        lines = text.strip().splitlines()
        entry = "\n".join(lines) if "--" in text else " ".join(line.strip() for line in lines)
        self._readline.add_history(entry)

    def close(self) -> None:
        """Write the history."""
        if not hasattr(self, "_readline"):
            return
        try:
            self._readline.set_history_length(HISTORY_LINES_MAX)
            self._readline.write_history_file(self._history)
        except OSError as error:
            self._warn(f"the history is not kept: {self._history}: {error.strerror}")

    def _complete(self, word: str, state: int) -> str | None:
        if state == 0:
            before = self._readline.get_line_buffer()[: self._readline.get_begidx()]
            self._matches = self._names().matching(before, word)
        return self._matches[state] if state < len(self._matches) else None


def statements(lines: Iterable[str]) -> Iterator[str]:
    """Statements and commands (a line that begins with a backslash) of a script."""
    waiting = ""
    for line in lines:
        if line.lstrip().startswith("\\") and not has_words(waiting):
            yield line.strip()
            continue
        waiting += line
        if ";" in line:
            found, waiting = split(waiting)
            yield from found
    if has_words(waiting):
        yield waiting.strip()
