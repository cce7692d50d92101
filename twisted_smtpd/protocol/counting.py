"""The limits on what a client may do again and again: commands that achieve nothing, refusals, and rates.

They are put around the commands that they concern when the table of commands is made, so the other commands, and limits
that are off, cost nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import wraps
from typing import TYPE_CHECKING

from twisted_smtpd.options.table import SMTPOptions
from twisted_smtpd.protocol.settings import CommandMethod
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from twisted_smtpd.protocol.dispatch import Dispatch

__all__ = ["PUT_OFF", "counted", "refused"]

# They bring no message nearer, if they come again and again.
IDLE = frozenset({"NOOP", "RSET", "HELP", "VRFY", "EXPN", "ETRN", "HELO", "EHLO", "LHLO"})
# As many times the limit: the refusals that a client gets while others of its recipients wait for their message.
SURPLUS = 10

#: What a recipient hears where too many were refused and some were accepted.
PUT_OFF = Reply(452, "4.5.3", ("Too many recipients were refused, send this one another message",))


def counted(verb: str, method: CommandMethod, values: SMTPOptions) -> CommandMethod:
    """A command with the limits that concern it.

    :param values: the value of each option.
    """
    if verb in IDLE:
        return _idle(method)
    if verb == "MAIL" and values["message_rate"]:
        return _rated(method, "messages", values["message_rate"])
    if verb == "RCPT" and values["recipient_rate"]:
        return _rated(method, "recipients", values["recipient_rate"])
    return method


def _idle(method: CommandMethod) -> CommandMethod:
    @wraps(method)
    def run(connection: Dispatch, argument: str | None) -> Awaitable[None]:
        connection.count_idle()
        return method(connection, argument)

    return run


def _rated(method: CommandMethod, what: str, limit: int) -> CommandMethod:
    refusal = Reply(450, "4.7.1", (f"Too many {what} from your address, try again later",))

    @wraps(method)
    def run(connection: Dispatch, argument: str | None) -> Awaitable[None]:
        if connection.connections.rates.another(what, connection._address, limit, connection._now()):
            return method(connection, argument)
        # It is no error: after some errors the client would be cut off, and its message be lost each time.
        rest = connection.push(refusal)
        refused(connection)
        return rest

    return run


def refused(connection: Dispatch) -> None:
    """Count a refusal that is no mistake, and hang up on a client that gets too many and no message accepted.

    While some of its recipients are accepted it is not cut off, or they would be lost, now and at each new attempt: the
    further ones hear :data:`PUT_OFF`.
    """
    connection._refusals += 1
    limit = connection.max_refusals
    if connection._refusals >= limit > 0 and (not connection._accepted or connection._refusals >= SURPLUS * limit):
        connection.send_reply("421 4.7.0 Too many refusals, closing the connection", verb="?")
