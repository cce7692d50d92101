"""What the connections of one server share: plain data, which :mod:`twisted_smtpd.assemble` puts together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted_smtpd.options.security import Security
from twisted_smtpd.options.table import SMTPOptions
from twisted_smtpd.protocol.states import State
from twisted_smtpd.runtime.connections import Connections

__all__ = ["RATE_WINDOW", "Command", "CommandMethod", "ParameterCheck", "SharedSettings", "ignore"]

#: Over how many seconds a client has to keep up ``min_data_rate``.
RATE_WINDOW = 60.0

#: An ``smtp_VERB`` method, called with the connection and the argument.
CommandMethod = Callable[[Any, "str | None"], Awaitable[None]]
#: Checks a parameter's value and notes it in ``server.envelope``; raises :exc:`SMTPReplyError`.
ParameterCheck = Callable[[Any, "str | None"], object]


def ignore(server: Any, value: str | None) -> None:
    """The check of a parameter that is taken, and then left out."""


@dataclass(eq=False, repr=False, slots=True)
class Command:
    """One verb in one state.

    :ivar method: carries it out, or refuses it.
    :ivar size_limit: octets of its command line, CRLF included, after EHLO.
    :ivar foreign: whether a subclass outside this package defined it: it may await anything.
    """

    method: CommandMethod
    size_limit: int
    foreign: bool


class SharedSettings:
    """The data that connections of one class, with one handler and the same options, share.

    :ivar cls: the protocol class.
    :ivar handler: the handler.
    :ivar values: the value of each option.
    :ivar own: the values that each connection has as attributes, in the order of ``OPTIONS``.
    :ivar hooks: the handler's hooks: ``MAIL`` to ``handle_MAIL``.
    :ivar deprecated_data_hook: what stands for ``handle_DATA`` in a handler with ``process_message``.
    :ivar lost_is_heard: whether the protocol class overrides ``connection_lost``.
    :ivar old_hooks: which of ``ehlo_hook`` and ``rset_hook`` the protocol class has.
    :ivar asked: the hooks that are called: the handler's; and those of commands that need no coroutine without them, if
        the class overrides ``_call_handler_hook`` or ``push``.
    :ivar security: TLS, proxies and trusted clients.
    :ivar mechanisms: the mechanisms of AUTH, by name.
    :ivar extensions: the ESMTP extensions in use, in the order of the EHLO response.
    :ivar mail_parameters: the parameters of MAIL, each with its check.
    :ivar rcpt_parameters: those of RCPT.
    :ivar exclusive: parameters of MAIL that may not be used together.
    :ivar commands: the verbs of the class.
    :ivar dispatch: for each state, what each verb does in it: the table of :mod:`~twisted_smtpd.protocol.states` with
        this server's methods.
    :ivar guarded: the same with this package's own methods only, for a program that calls one of them by its name.
    :ivar binds_channels: whether clients may bind their authentication to the TLS connection.
    :ivar longest_command: octets of the longest command line, CRLF included.
    :ivar fits_all: octets of a line that is too long for no command, without its CRLF.
    :ivar call_limits: how often a client may send each verb (``"*"`` for the rest), or ``None``.
    :ivar shortest_limit: the shortest limit in time, in seconds.
    :ivar connections: the connections of protocols that are made by hand; a factory has its own.
    :ivar ehlo_state: gives what the EHLO response depends on; ``None`` where it has to be put together each time.
    :ivar ehlo_responses: the responses put together so far.
    """

    cls: type[Any]
    handler: object
    values: SMTPOptions
    own: tuple[Any, ...]
    hooks: Mapping[str, str]
    deprecated_data_hook: Callable[..., Awaitable[Any]] | None
    lost_is_heard: bool
    old_hooks: frozenset[str]
    asked: frozenset[str]
    security: Security
    mechanisms: Mapping[str, Any]
    extensions: tuple[Any, ...]
    mail_parameters: Mapping[str, ParameterCheck]
    rcpt_parameters: Mapping[str, ParameterCheck]
    exclusive: tuple[frozenset[str], ...]
    commands: Mapping[str, Command]
    dispatch: Mapping[State, dict[str, Command]]
    guarded: Mapping[State, Mapping[str, Command]]
    binds_channels: bool
    longest_command: int
    fits_all: int
    call_limits: Mapping[str, int] | None
    shortest_limit: float
    connections: Connections
    ehlo_state: Callable[[Any], Hashable] | None
    ehlo_responses: dict[Hashable, str]

    def connections_on(self, reactor: Any) -> Connections:
        """The connections of protocols that are made by hand and served by this reactor."""
        return self.connections
