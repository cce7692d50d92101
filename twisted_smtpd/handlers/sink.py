"""The handler that keeps nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["Sink"]


class Sink:
    """Accepts every message and throws it away.

    It has no hooks: without them the server accepts everything.
    """

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Sink:
        """A sink for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: none.
        """
        if args:
            parser.error("it takes no arguments")
        return cls()
