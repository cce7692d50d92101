"""Handlers that refuse recipients or senders by a list, without Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from twisted_smtpd.handlers.address_lists import AddressList, NotKnown, address_list
from twisted_smtpd.handlers.chain import PASS
from twisted_smtpd.interfaces import HookServer, IMAILHandler, IRCPTHandler, IReloadable, IStoppable
from twisted_smtpd.session import NULL_SENDER, Envelope, Session
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["Recipients", "Senders"]

log = Logger()

Kind = TypeVar("Kind", bound="_Listed")


@implementer(IReloadable, IStoppable)
class _Listed:
    """What both handlers share.

    :param lists: each as :func:`~twisted_smtpd.handlers.address_lists.address_list` takes it, or an object with the
        methods of :class:`~twisted_smtpd.handlers.address_lists.AddressList`.  An address on one of them is listed.
    :param refuse: whether those that are listed are refused, instead of those that are not.
    :param delimiter: a character after which the local part of an address does not count: with ``+``,
        ``anne+news@example.com`` is ``anne@example.com``.
    :param service: the keyword arguments of :class:`~twisted_smtpd.handlers.address_lists.ServiceList`.
    :raises ValueError: without a list, or if one is malformed.
    :raises OSError: if a file can't be read.
    """

    def __init__(self, *lists: str | AddressList, refuse: bool = False, delimiter: str = "", **service: Any) -> None:
        if not lists:
            raise ValueError("there is no list")
        if len(delimiter) > 1 or delimiter == "@":
            raise ValueError(f"the delimiter is one character, not {delimiter!r}")
        self._lists = [address_list(one, **service) if isinstance(one, str) else one for one in lists]
        self._refuse = refuse
        self._delimiter = delimiter

    @property
    def admits_listed_only(self) -> bool:
        """Whether addresses that are not listed are refused."""
        return not self._refuse

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' '.join(map(repr, self._lists))}>"

    @classmethod
    def from_cli(cls: type[Kind], parser: ArgumentParser, *args: str) -> Kind:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: the lists, then options.
        """
        parser.add_argument("lists", nargs="+", metavar="LIST")
        parser.add_argument("--refuse", action="store_true", help="refuse those that are listed")
        parser.add_argument("--delimiter", default="", help="what follows it in the local part does not count")
        parser.add_argument("--timeout", type=float, default=5.0, help="seconds until a web service has to answer")
        parser.add_argument("--cache", type=float, default=60.0, help="seconds for which its answers are remembered")
        parser.add_argument("--token-file", help="a file with a bearer token for it in the first line")
        options = parser.parse_args(list(args))
        headers = None
        if options.token_file is not None:
            with open(options.token_file, encoding="utf-8") as file:
                token = file.readline().strip()
            if not token.isascii() or not token.isprintable() or not token:
                parser.error(f"there is no token in {options.token_file}")
            headers = {"authorization": f"Bearer {token}"}
        return cls(
            *options.lists,
            refuse=options.refuse,
            delimiter=options.delimiter,
            timeout=options.timeout,
            cache=options.cache,
            headers=headers,
        )

    async def _judge(self, session: Session, address: str, refusal: Reply) -> Any:
        try:
            listed = await self._is_listed(address)
        except NotKnown:
            log.info("{session.id}: {hook} can't be asked about an address", session=session, hook=self)
            return Reply(451, "4.4.3", ("This address can't be checked now, try again later",))
        return refusal if listed is self._refuse else PASS

    async def _is_listed(self, address: str) -> bool:
        local, at, domain = address.rpartition("@")
        if self._delimiter and at:
            # Not of a local part that begins with it.
            address = f"{local[:1]}{local[1:].partition(self._delimiter)[0]}@{domain}"
        unknown: NotKnown | None = None
        for one in self._lists:
            try:
                if await one.has(address):
                    return True
            except NotKnown as error:
                # Another list may have it.
                unknown = error
        if unknown is not None:
            raise unknown
        return False

    async def reload(self) -> None:
        """Read files again, and forget what web services have answered."""
        for one in self._lists:
            await one.reload()

    async def stop(self) -> None:
        """Close the connections to web services."""
        for one in self._lists:
            await one.stop()


@implementer(IRCPTHandler)
class Recipients(_Listed):
    """Refuses recipients that are not listed, and leaves the others to the next handler of its chain.

    ``postmaster`` without a domain always passes (RFC 5321 section 4.5.1).
    """

    async def handle_RCPT(
        self, server: HookServer, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> Any:
        """Judge a recipient.

        :returns: ``PASS``, 550, or 451 if a web service does not answer.
        """
        if "@" not in address:
            return PASS
        enhanced, text = ("5.7.1", "This recipient is not accepted") if self._refuse else ("5.1.1", "No such recipient")
        return await self._judge(session, address, Reply(550, enhanced, (text,)))


@implementer(IMAILHandler)
class Senders(_Listed):
    """Refuses senders that are not listed, and leaves the others to the next handler of its chain.

    The null reverse-path always passes: without it no bounce could arrive.
    """

    async def handle_MAIL(
        self, server: HookServer, session: Session, envelope: Envelope, address: str, mail_options: list[str]
    ) -> Any:
        """Judge a sender.

        :returns: ``PASS``, 550, or 451 if a web service does not answer.
        """
        if address in (NULL_SENDER, ""):
            return PASS
        return await self._judge(session, address, Reply(550, "5.7.1", ("This sender is not accepted",)))
