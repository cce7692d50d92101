"""The email package's parser, with a limit on parts in parts."""

from __future__ import annotations

import email.message
from collections.abc import Callable
from email.feedparser import FeedParser
from email.policy import Policy
from typing import TYPE_CHECKING, Any

from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["MAX_DEPTH", "parse"]

#: Parts in parts, as many as Postfix takes.  The email package compares each line with the end of each part that it is
#: in, so 58 KB of 900 levels take it a second; at some depth it fails.
MAX_DEPTH = 100

_PIECE = 8192


if TYPE_CHECKING:
    _FeedParser = FeedParser[Any]
else:
    # It can't be subscripted where it is not only read.
    _FeedParser = FeedParser


class _Parser(_FeedParser):
    def _new_message(self) -> None:
        # The email package has no public way to see how deep it is.  Without this name there is no limit; a test fails.
        if len(getattr(self, "_msgstack", ())) >= MAX_DEPTH:
            raise SMTPReplyError(554, "5.6.0", f"No parts in parts more than {MAX_DEPTH} deep, please")
        super()._new_message()  # type: ignore[misc]


def parse(
    content: str | bytes, message_class: Callable[..., email.message.Message] | None, policy: Policy[Any]
) -> email.message.Message:
    """Make a message object, as :func:`email.message_from_bytes` does.

    :param content: the message.
    :param message_class: see :class:`~twisted_smtpd.handlers.Message`.
    :param policy: the same.
    :raises SMTPReplyError: if its parts are nested too deep (554).
    """
    parser = _Parser(message_class, policy=policy)
    for start in range(0, len(content), _PIECE):
        piece = content[start : start + _PIECE]
        parser.feed(piece if isinstance(piece, str) else piece.decode("ascii", "surrogateescape"))
    message: email.message.Message = parser.close()
    return message
