"""Terminal output: results on stdout (text, or one JSON object), everything else on stderr.

Tables are rich's where a person watches and plain lines of text elsewhere; only this module knows which.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError

STATE_STYLES = {
    "published": "green",
    "running": "cyan",
    "waiting": "yellow",
    "stale": "yellow",
    "failed": "bold red",
}
"""Colours of the states of days and snapshots."""
FAILED, NOT_YET = 1, 3
"""Exit codes of a day or snapshot that failed, and of one that is not published yet, or stale."""
_JSON_WANTED = "cdi.json"
_PLAIN_WIDTH = 140


def json_option(command: Any) -> Any:
    """Add `--json`: one JSON object on stdout instead of text."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        is_eager=True,
        callback=_remember_json,
        help="Print one JSON object instead of text.",
    )(command)


def _remember_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    # Contexts share `meta` with their parents, so that a failure above the command knows it too.
    ctx.meta[_JSON_WANTED] = value
    return value


def json_wanted(ctx: click.Context) -> bool:
    """Whether the command prints JSON."""
    return bool(ctx.meta.get(_JSON_WANTED))


def print_json(value: Any) -> None:
    """Print one JSON object on stdout; days and other values that JSON lacks as text."""
    click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def result_console() -> Console:
    """Return the console for results."""
    return _console(sys.stdout)


def progress_console() -> Console:
    """Return the console for everything that is not a result."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Print on stderr what is being done, and yield a function that prints how far it is.

    On a terminal one line that changes; elsewhere a new line for each text that differs from the last.
    """
    console = progress_console()
    if console.is_terminal:
        with console.status(escape(what)) as status:
            yield lambda text: status.update(escape(f"{what}: {text}"))
        return
    console.print(escape(what))
    last = what

    def report(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            console.print(f"  {escape(text)}")

    yield report


def facts(rows: Sequence[tuple[str, str]]) -> Text:
    """Return names and values, one pair a line, values aligned and never cut."""
    width = max((len(name) for name, _ in rows), default=0)
    text = Text()
    for number, (name, value) in enumerate(rows):
        text.append("\n" if number else "")
        text.append(f"{name:<{width}}", style="dim").append(f"  {value}")
    return text


def state_text(state: str, reason: str) -> str:
    """Return a state and its reason, where there is more to it than the word."""
    return state if state == reason else f"{state}: {reason}"


def state_exit_code(state: str) -> int:
    """Return the exit code of a day's or a snapshot's state."""
    return {"published": 0, "failed": FAILED}.get(state, NOT_YET)


def figures_table(title: str | None, headings: Sequence[str], *, words: int = 1) -> Table:
    """Return an empty table of figures: as many columns of words, to the left, and all others to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < words else "right")
    return table


def print_failure(error: CdiError) -> None:
    """Print class, cause, next step and owner on stderr."""
    console = progress_console()
    console.print(f"[bold red]{error.failure_class}[/]: {escape(error.cause)}")
    next_step = escape(error.next_step.rstrip("."))
    console.print(f"Next: {next_step}. Owner: {FAILURE_GUIDE[error.failure_class].owner}.")
