"""Reads the answer of a hook that says yes or no."""

from __future__ import annotations

from twisted.logger import Logger

from twisted_smtpd.runtime.awaiting import unfinished
from twisted_smtpd.wire.replies import BadStatus, Reply

__all__ = ["permits"]

log = Logger()


def permits(answer: object) -> bool:
    """Whether a hook that is asked for true or false lets the client go on.

    :param answer: what it returned: a status counts as true if its code is 2yz, anything else by its truth.  A
        generator, or an awaitable whose result is not there yet, permits nothing.
    """
    if isinstance(answer, (str, Reply)):
        try:
            return 200 <= Reply.parse(answer).code < 300
        except BadStatus:
            return False
    if unfinished(answer):
        log.error("a hook that is asked for true or false gave a {kind}: that is no yes", kind=type(answer).__name__)
        return False
    return bool(answer)
