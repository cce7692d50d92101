"""What ``twisted-smtpd`` does beside running a server: ``twisted-smtpd NAME …``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

__all__ = ["SUBCOMMANDS", "Subcommand"]


@dataclass(frozen=True)
class Subcommand:
    """A command of its own.

    :ivar summary: what it does, and its arguments, in a line.
    :ivar main: the function that runs it, as ``module:function``; it takes the words behind the name.
    :ivar words: the words that may come first, for shells to complete.
    """

    summary: str
    main: str
    words: tuple[str, ...] = ()

    def run(self, words: Sequence[str]) -> None:
        """Run it.

        :param words: what follows its name on the command line.
        """
        module, _, name = self.main.partition(":")
        main: Callable[[Sequence[str]], None] = getattr(import_module(module), name)
        main(words)


#: The commands by name.  No server runs meanwhile, or it is another process.
SUBCOMMANDS = {
    "completion": Subcommand(
        "print the completion of a shell: bash, zsh or fish",
        "twisted_smtpd.cli.completion:main",
        ("bash", "zsh", "fish"),
    ),
    "consume": Subcommand(
        "deliver messages out of RabbitMQ, where -c amqp has put them: consume URL -c HANDLER",
        "twisted_smtpd.broker.command:main",
    ),
    "healthcheck": Subcommand(
        "exit with 0 if a server serves: healthcheck HOST:PORT, or the URL of --metrics",
        "twisted_smtpd.cli.health:main",
    ),
    "inbox": Subcommand(
        "import messages into an inbox's file, or export them: inbox import|export --store FILE …",
        "twisted_smtpd.inbox.transfer:main",
        ("import", "export"),
    ),
    "man": Subcommand("print the manual page: twisted-smtpd man | man -l -", "twisted_smtpd.cli.manual:main"),
    "passwd": Subcommand("set a user's password in a file: passwd FILE USER", "twisted_smtpd.auth.__main__:main"),
    "queue": Subcommand(
        "look after a queue: queue list|show|retry|hold|delete|flush FOLDER [ID ...]",
        "twisted_smtpd.queue.command:main",
        ("list", "show", "retry", "hold", "delete", "flush"),
    ),
}
