"""A progress bar for people: on stderr, so that stdout stays clean, and only where stderr is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(title: str, total: int, visible: bool) -> Iterator[Callable[[str], None]]:
    """Show a bar of ``total`` steps while the ``with`` block runs; call what it gives with a word on each step done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", markup=False),
    )  # fmt: skip
    hidden = not (visible and console.is_terminal)
    # Two refreshes a second: more would take time from what is measured.
    with Progress(*columns, console=console, transient=True, disable=hidden, refresh_per_second=2) as bar:
        task = bar.add_task(title, total=total, step="")
        yield lambda step: bar.update(task, advance=1, step=step)
