"""The console of `plane.cli.output`. Imported by the first text that needs rich, which takes a while."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from plane.decisions.terminal_text import plain_text

__all__ = ["PlainConsole"]


class PlainConsole(Console):
    """A console that obeys its own markup only. Every text that it prints passes `render_str`, those of tables too."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text without the controls of others."""
        return super().render_str(plain_text(text), **options)
