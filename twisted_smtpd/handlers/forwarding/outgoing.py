"""A message in the form in which the next host gets it."""

from __future__ import annotations

from dataclasses import dataclass

from twisted_smtpd.handlers.received import count_received
from twisted_smtpd.handlers.trace import split_header
from twisted_smtpd.wire.sending import end_lines

__all__ = ["Outgoing"]


@dataclass(frozen=True)
class Outgoing:
    """A message for the next host.

    :ivar content: the message, as :func:`~twisted_smtpd.wire.sending.end_lines` makes it.
    :ivar size: its octets as they count for the next host's SIZE.
    :ivar plain_header: whether its header is ASCII.
    :ivar plain: whether all of it is.
    :ivar hops: how many ``Received`` headers it had.
    """

    content: bytes
    size: int
    plain_header: bool
    plain: bool
    hops: int

    @classmethod
    def prepare(cls, received: bytes, content: bytes, binary: bool = False) -> Outgoing:
        """Make a message ready.  It takes its time for each line: for 30 MB, up to a quarter of a second.

        :param received: our ``Received`` header.
        :param content: the message as the client has sent it.
        :param binary: whether it is BINARYMIME: then it is left as it is.
        """
        header, body = split_header(content)
        hops, plain_header = count_received(header), header.isascii()
        whole = b"".join((received, header, body))
        prepared = whole if binary else end_lines(whole)
        size = len(received) + len(header) + len(body)
        return cls(prepared, size, plain_header, plain_header and body.isascii(), hops)
