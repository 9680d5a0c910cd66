"""The native core; its docstrings describe it."""

from typing import Any

def __getattr__(name: str) -> Any: ...
