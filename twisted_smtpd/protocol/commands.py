"""What the methods of commands declare about themselves, and the refusal of unknown commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.protocol.states import Stateful, state_of
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["HTTP_METHODS", "guarded", "syntax", "unknown_command"]

F = TypeVar("F", bound=Callable[..., Any])

# A scanner sends these, or a browser that an attacker has made connect here.  Such a connection must not go on.
HTTP_METHODS = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE"})


def syntax(text: str, extended: str | None = None, when: str | None = None) -> Callable[[F], F]:
    """Decorate an ``smtp_VERB`` method with what HELP says of it.

    :param text: the command's syntax.
    :param extended: what is added to it after EHLO.
    :param when: the name of an attribute of the server; where that is false, HELP does not know the command.
    """

    def decorate(method: F) -> F:
        method.__smtp_syntax__ = text  # type: ignore[attr-defined]
        method.__smtp_syntax_extended__ = extended  # type: ignore[attr-defined]
        method.__smtp_syntax_when__ = when  # type: ignore[attr-defined]
        return method

    return decorate


class Guarded(Stateful, Protocol):
    """A connection with a table of states."""

    _settings: SharedSettings


def guarded(verb: str) -> Callable[[F], F]:
    """Decorate an ``smtp_VERB`` method for which the table of states decides whether it may come.

    Where a program calls it by its name, from a command of its own for example, the table is asked then.  A command
    line does not come this way: its state has let it through already.
    """

    def decorate(method: F) -> F:
        @wraps(method)
        def call(connection: Guarded, argument: str | None) -> Awaitable[None]:
            return connection._settings.guarded[state_of(connection)][verb].method(connection, argument)

        call.unguarded = method  # type: ignore[attr-defined]
        return cast(F, call)

    return decorate


def unknown_command(verb: str, hidden: bool) -> SMTPReplyError:
    """The refusal of an unknown command.

    :param hidden: whether it may be a password, which must not be in the reply, since that is in the log.
    """
    if verb in HTTP_METHODS:
        return SMTPReplyError(521, "5.5.1", "This is a mail server, it does not speak HTTP")
    if verb == "BDAT":
        # Nothing reads its chunk, which would run as commands.
        return SMTPReplyError(521, "5.5.1", "CHUNKING is not offered here, closing the connection")
    return SMTPReplyError(500, "5.5.1", "Command not recognized" if hidden else f"Command {verb[:32]} not recognized")
