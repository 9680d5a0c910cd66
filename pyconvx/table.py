"""A table that prints as text, shows as rich's and dumps as JSON: what reports, explanations and benchmarks return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

_SHORT = 12
"""Columns with no longer cell than this are never folded."""


@dataclass
class Table:
    """Named columns and rows of cells; ``notes`` stand below."""

    title: str
    columns: Sequence[str]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield every row by its columns' names."""
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        cells = [tuple(map(str, self.columns)), *(tuple(map(_text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, *lines, *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Return the table as JSON-able data: title, rows by column, notes."""
        return {"title": self.title, "rows": list(self), "notes": self.notes}

    def show(self) -> None:
        """Print the table: with rich to a terminal, folded to its width; as plain text to anything else."""
        import rich.box
        import rich.console
        import rich.table
        from rich.text import Text

        console = rich.console.Console()
        if not console.is_terminal:
            print(self)
            return
        table = rich.table.Table(box=rich.box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
        for index, column in enumerate(self.columns):
            cells = [row[index] for row in self.rows]
            numeric = bool(cells) and all(isinstance(cell, (int, float)) for cell in cells)
            short = max(map(len, [column, *map(_text, cells)])) <= _SHORT
            table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=short)
        for row in self.rows:
            table.add_row(*(Text(_text(cell)) for cell in row))
        console.print(Text(self.title, style="bold"))
        console.print(table)
        for note in self.notes:
            console.print(Text(note))


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:.0f}"
    return "" if cell is None else str(cell)
