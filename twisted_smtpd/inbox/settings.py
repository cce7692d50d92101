"""What the site of an inbox is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from twisted_smtpd.testing.failures import Failures

if TYPE_CHECKING:
    from twisted_smtpd.store.messages import NewMessage, StoredMessage

__all__ = ["LOOPBACK_NAMES", "Releaser", "SiteSettings"]

#: The names in ``Host:`` that a site on loopback answers to.
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Releaser(Protocol):
    """Sends a stored message on to a real server, which was named at the start.

    :ivar name: the server, as the page shows it: ``mail.example.com:25``.
    """

    name: str

    def release(self, stored: StoredMessage, recipients: Sequence[str]) -> Any:
        """Send a message on.

        :param stored: the message.
        :param recipients: the addresses that get it.
        :returns: an awaitable or a Deferred of the server's reply, a text.
        :raises twisted_smtpd.wire.replies.SMTPReplyError: if the server refuses it.
        """


@dataclass(frozen=True)
class SiteSettings:
    """What the site of an inbox is told.

    :ivar title: the page's title.
    :ivar version: the version of twisted-smtpd; ``""`` to tell none.
    :ivar http_hosts: the names in ``Host:`` to which it answers, without a port and in small letters.
    :ivar base: the path below which it is, such as ``/inbox``, without a slash at its end; ``""`` for the root.
    :ivar users: user to password, for basic authentication; empty for none.
    :ivar tokens: bearer token to the mailbox that it opens, or to ``None`` where it opens all.
    :ivar smtp_addresses: where the server takes mail, as ``localhost:8025``, to tell people.
    :ivar release: sends messages on to a real server; ``None`` where none was named.
    :ivar failures: what is to go wrong in the SMTP server, to be seen and set; ``None`` where it can't fail on demand.
    :ivar sort: gives a message that comes over HTTP the mailboxes that it is for; ``None`` where there are no rules.
    :ivar max_upload: octets of a request's body, at most.
    :ivar check_links: whether links in messages may be asked for, when a person wants them checked.
    :ivar trust_programs: whether programs may send, release and set failures without a token or a password, where
        none is asked for.  Browsers may not.
    """

    title: str = "Inbox"
    version: str = ""
    http_hosts: frozenset[str] = LOOPBACK_NAMES
    base: str = ""
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    smtp_addresses: tuple[str, ...] = ()
    release: Releaser | None = None
    failures: Failures | None = None
    sort: Callable[[NewMessage], NewMessage] | None = None
    max_upload: int = 32 * 2**20
    check_links: bool = False
    trust_programs: bool = False

    @property
    def is_open(self) -> bool:
        """Whether neither a password nor a token is asked for."""
        return not self.users and not self.tokens
