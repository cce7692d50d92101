"""Errors of hooks that say what the machine is short of: disk space, file descriptors, memory.

Where in the code this is noticed explains nothing, and there may be one for each message until somebody acts.  So the
log gets a line, and no traceback.
"""

from __future__ import annotations

import errno

from twisted_smtpd.logs.events import SHORTAGE, Client
from twisted_smtpd.wire.replies import Reply

__all__ = ["is_shortage", "report_shortage"]

_DISK_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_SHORTAGES = _DISK_FULL | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
# The commands that 452 is a reply to (RFC 5321 section 4.3.2).
_STORING = frozenset({"MAIL", "RCPT", "DATA", "BDAT"})


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that the machine is short of something."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


def report_shortage(error: BaseException, verb: str, client: Client) -> Reply | None:
    """Write a line about a shortage.

    :param error: the error, see :func:`is_shortage`.
    :param verb: the command that has failed.
    :param client: whose command it is.
    :returns: the reply; ``None`` for the one to any other error.
    """
    SHORTAGE.tell(client, verb=verb, error=str(error))
    if not isinstance(error, OSError) or error.errno not in _DISK_FULL or verb not in _STORING:
        return None
    return Reply(452, "4.3.1", (f"Insufficient system storage, try again later (session {client.session.id})",))
