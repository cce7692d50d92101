"""The form of a message in the broker, which programs in any language can read: see the page about the broker.

The body is one line of JSON, the envelope, and behind its line end the message as it came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

from twisted_smtpd.queue.entries import NewMessage
from twisted_smtpd.session import Recipient

__all__ = ["CONTENT_TYPE", "VERSION", "FormatError", "Packed", "decode", "pack"]

CONTENT_TYPE = "application/vnd.twisted-smtpd.mail"
#: It counts up when an old reader could not read a message any more.
VERSION = 1


class FormatError(ValueError):
    """What is in the queue is no message of ours."""


@dataclass(frozen=True)
class Packed:
    """A message in the broker.

    :ivar id: the message's id.
    :ivar arrived: when it was accepted, in seconds since 1970.
    :ivar sender: the reverse-path's mailbox; ``""`` is the null one.
    :ivar recipients: those that are not settled.
    :ivar facts: what is known of session and envelope.
    :ivar size: octets of the message.
    :ivar checksum: their CRC-32.
    :ivar attempts: how many deliveries have failed.
    :ivar warned: whether the sender has been told of the delay.
    :ivar last_reply: what was answered last.
    :ivar claim: where the message is, if it is too large for the broker; ``None`` if it is in ``content``.
    :ivar content: the message; empty with a claim.
    """

    id: str
    arrived: float
    sender: str
    recipients: Sequence[Recipient]
    facts: Mapping[str, Any]
    size: int
    checksum: int
    attempts: int = 0
    warned: bool = False
    last_reply: str = ""
    claim: str | None = None
    content: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """The body for the broker."""
        envelope = {
            "version": VERSION,
            "id": self.id,
            "arrived": self.arrived,
            "sender": self.sender,
            "recipients": [
                {"address": one.address, "options": list(one.options), "parameters": dict(one.parameters)}
                for one in self.recipients
            ],
            "size": self.size,
            "crc32": self.checksum,
            "attempts": self.attempts,
            "warned": self.warned,
            "last_reply": self.last_reply,
            "claim": self.claim,
            "facts": dict(self.facts),
        }
        return b"%b\n%b" % (json.dumps(envelope).encode(), self.content)

    def left_to(self, recipients: Sequence[Recipient], **changes: Any) -> Packed:
        """The message for some of its recipients.

        :param changes: what else is different.
        """
        return replace(self, recipients=tuple(recipients), **changes)


def pack(message: NewMessage, id: str, now: float) -> Packed:
    """A message that was accepted.

    :param id: its id.
    :param now: the time in seconds since 1970.
    """
    content = message.content
    checksum = crc32(content)
    return Packed(
        id, now, message.sender, tuple(message.recipients), message.facts, len(content), checksum, content=content
    )


def decode(body: bytes) -> Packed:
    """Read a body.

    :raises FormatError: it is none of ours.
    """
    line, _, content = body.partition(b"\n")
    try:
        envelope = json.loads(line)
        version = envelope["version"]
        if version != VERSION:
            raise FormatError(f"version {version!r} of the format, not {VERSION}")
        recipients = tuple(
            Recipient(one["address"], list(one["options"]), dict(one["parameters"])) for one in envelope["recipients"]
        )
        if not recipients:
            raise FormatError("it has no recipients")
        return Packed(
            str(envelope["id"]),
            float(envelope["arrived"]),
            str(envelope["sender"]),
            recipients,
            dict(envelope["facts"]),
            int(envelope["size"]),
            int(envelope["crc32"]),
            int(envelope["attempts"]),
            bool(envelope["warned"]),
            str(envelope["last_reply"]),
            envelope["claim"],
            content,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, FormatError) else FormatError(f"{type(error).__name__}: {error}") from None
