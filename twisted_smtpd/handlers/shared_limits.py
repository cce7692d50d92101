"""The handler whose limits hold for several servers together: they count in Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.logger import Logger, globalLogPublisher
from zope.interface import implementer

from twisted_smtpd.handlers.chain import PASS
from twisted_smtpd.interfaces import (
    HookServer,
    ICONNECTHandler,
    IDISCONNECTHandler,
    IMAILHandler,
    IRCPTHandler,
    IStartable,
)
from twisted_smtpd.runtime.connections import limited_address
from twisted_smtpd.runtime.lifecycle import HandlerStartError, ServerInfo
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["HOUR", "SharedLimits"]

log = Logger()

#: Seconds in which messages, recipients and failed sign-ins count.
HOUR = 3600
# Seconds until Redis has to answer, and in which it is not asked again after it did not.
TIMEOUT, PAUSE = 1.0, 5.0
# Seconds after which a connection counts no more, if its server has died without a word.
LONGEST_CONNECTION = 24 * HOUR
# Ended connections that are remembered until Redis can be asked.
MAX_LEFT = 10_000

# Handlers of this process that hear of wrong passwords, by where they count them.
_counting: dict[tuple[str, str], list[SharedLimits]] = {}

# Counts, and gives the number; a counter ends an hour after its first count.
_COUNT = """
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if count == tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count
"""
# Notes a connection if there is room for it, and says whether there was.
_ENTER = """
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


class RedisStore:
    """Counts in Redis.  It needs ``txredisapi``.

    :param url: ``redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]``, ``rediss://…`` for TLS, or ``unix:///PATH``.
    :raises ValueError: it can't be used.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            usable = parts.scheme in ("redis", "rediss", "unix") and bool(parts.hostname or parts.scheme == "unix")
            self._database = None if parts.scheme == "unix" else int(parts.path.strip("/") or 0)
            port = parts.port or 6379
        except ValueError:
            usable, port = False, 0
        if not usable:
            raise ValueError("not redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE], rediss://… or unix:///PATH")
        self._parts, self._port = parts, port
        self._connection: Any = None
        #: Where it is, without a password.
        self.place = f"unix:{parts.path}" if parts.scheme == "unix" else f"{parts.hostname}:{port}"

    def open(self) -> None:
        """Begin to connect."""
        # Imported here: it is an extra, and takes the reactor that is installed.
        try:
            import txredisapi
        except ImportError:
            raise HandlerStartError("install txredisapi: pip install 'twisted-smtpd[redis]'") from None
        parts = self._parts
        options: dict[str, Any] = {"connectTimeout": TIMEOUT, "replyTimeout": TIMEOUT}
        if parts.password is not None:
            options["password"] = unquote(parts.password)
            if parts.username:
                options["username"] = unquote(parts.username)
        if parts.scheme == "unix":
            self._connection = txredisapi.lazyUnixConnection(parts.path, **options)
        else:
            if parts.scheme == "rediss":
                options["ssl_context_factory"] = True
            self._connection = txredisapi.lazyConnection(parts.hostname, self._port, self._database, **options)

    async def count(self, key: str, by: int, seconds: int) -> int:
        """Count, and give the number so far."""
        return int(await self._connection.eval(_COUNT, [key], [by, seconds]))

    async def look(self, key: str) -> int:
        """The number so far."""
        return int(await self._connection.get(key) or 0)

    async def enter(self, key: str, name: str, most: int) -> bool:
        """Note a connection, if there are fewer than so many."""
        return bool(await self._connection.eval(_ENTER, [key], [name, most, LONGEST_CONNECTION]))

    async def leave(self, key: str, name: str) -> bool:
        """A connection has ended.

        :returns: true.
        """
        await self._connection.zrem(key, name)
        return True

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()


@implementer(ICONNECTHandler, IMAILHandler, IRCPTHandler, IDISCONNECTHandler, IStartable)
class SharedLimits:
    """Limits what a client may do at several servers together.

    A client is an IPv4 address or an IPv6 /64; behind a proxy that is believed, the client's.  Loopback addresses are
    exempt.  While Redis can't be asked, the limits of each server hold, and these do not.

    :param store: Redis, see :class:`RedisStore`.
    :param connections: at the same time; 0 for any number, here and below.
    :param messages: in an hour.
    :param recipients: in an hour.
    :param failures: wrong passwords in an hour; then the client is turned away (421).
    :param prefix: what the names of the keys in Redis begin with.
    """

    def __init__(
        self,
        store: Any,
        *,
        connections: int = 0,
        messages: int = 0,
        recipients: int = 0,
        failures: int = 0,
        prefix: str = "smtpd:",
    ) -> None:
        limits = {"connections": connections, "messages": messages, "recipients": recipients, "failures": failures}
        for name, value in limits.items():
            if value < 0:
                raise ValueError(f"{name} is 0 or more, not {value}")
        if not any(limits.values()):
            raise ValueError("no limit is given: connections, messages, recipients or failures")
        self._store, self._prefix = store, prefix
        self._connections, self._messages = connections, messages
        self._recipients, self._failures = recipients, failures
        self._not_before = 0.0
        self._inside: dict[Session, tuple[str, str]] = {}
        # Ended while Redis could not be asked: it would count them for a day.
        self._left: deque[tuple[str, str]] = deque(maxlen=MAX_LEFT)
        self._numbers = iter(range(2**63))
        self._name = ""
        self._clock: Any = None
        # Any callable is an observer.
        self._observer: Any = self._hear

    def __repr__(self) -> str:
        return f"<SharedLimits in {self._store.place}>"

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> SharedLimits:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: the URL of Redis, and limits.
        """
        parser.add_argument("url", help="redis://HOST:PORT, or file:PATH for a file with the URL in its first line")
        for name, text in (
            ("connections", "of a client at the same time"),
            ("messages", "of a client in an hour"),
            ("recipients", "of a client in an hour"),
            ("failures", "wrong passwords of a client in an hour"),
        ):
            parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help=text)
        parser.add_argument("--prefix", default="smtpd:", help="of the keys in Redis")
        options = parser.parse_args(list(args))
        url = options.url
        if url.startswith("file:"):
            with open(url.removeprefix("file:"), encoding="utf-8") as file:
                url = file.readline().strip()
        return cls(
            RedisStore(url),
            connections=options.connections,
            messages=options.messages,
            recipients=options.recipients,
            failures=options.failures,
            prefix=options.prefix,
        )

    # -- its life ------------------------------------------------------------------------------------------------------

    async def start(self, server: ServerInfo) -> None:
        """Connect to Redis, and hear of wrong passwords."""
        self._name = secrets.token_hex(6)
        self._clock = server.reactor
        self._store.open()
        if self._failures:
            _counting.setdefault(self._counted_in, []).append(self)
            globalLogPublisher.addObserver(self._observer)

    async def stop(self) -> None:
        """Close the connection."""
        counting = _counting.get(self._counted_in, [])
        if self in counting:
            globalLogPublisher.removeObserver(self._observer)
            counting.remove(self)
        await self._store.close()

    @property
    def _counted_in(self) -> tuple[str, str]:
        return self._store.place, self._prefix

    def _hear(self, event: Any) -> None:
        # Each of these handlers in a process hears of it, and one of them counts.
        if event.get("event") != "sign_in_failed" or _counting[self._counted_in][0] is not self:
            return
        host = event["peer"].rpartition(":")[0].strip("[]")
        if (address := limited_address(host)) is not None:
            counting = Deferred.fromCoroutine(self._counted(f"failures:{address}", 1))
            counting.addErrback(lambda failure: log.failure("a wrong password was not counted", failure))

    # -- Redis ---------------------------------------------------------------------------------------------------------

    async def _ask(self, asking: Callable[[], Any]) -> Any:
        """What Redis answers; ``None`` while it can't be asked."""
        if monotonic() < self._not_before:
            return None
        answer: Deferred[Any] = Deferred.fromCoroutine(asking())
        if not answer.called and self._clock is not None:
            # Without a connection txredisapi would wait until there is one.
            answer.addTimeout(TIMEOUT, self._clock)
        try:
            return await answer
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if monotonic() >= self._not_before:
                text = " ".join(str(error).split()) or type(error).__name__
                log.error(
                    "Redis at {place}: {error}; the limits of each server hold", place=self._store.place, error=text
                )
            self._not_before = monotonic() + PAUSE
            return None

    async def _has_too_many(self, what: str, client: str, most: int) -> bool:
        return most > 0 and await self._counted(f"{what}:{client}", 1) > most

    async def _counted(self, name: str, by: int) -> int:
        return await self._ask(lambda: self._store.count(f"{self._prefix}{name}", by, HOUR)) or 0

    # -- hooks ---------------------------------------------------------------------------------------------------------

    async def handle_CONNECT(self, server: HookServer, session: Session, envelope: Envelope) -> Any:
        """Turn a client away that has too many connections, or has guessed too many passwords."""
        address = _address(session)
        if address is None:
            return PASS
        if self._failures:
            failed = await self._ask(lambda: self._store.look(f"{self._prefix}failures:{address}")) or 0
            if failed >= self._failures:
                return Reply(421, "4.7.0", ("Too many failed sign-ins from your address, try again later",))
        if self._connections:
            self._leave_late()
            key, name = f"{self._prefix}connections:{address}", f"{self._name}:{next(self._numbers)}"
            entered = await self._ask(lambda: self._store.enter(key, name, self._connections))
            if entered is False:
                return Reply(421, "4.7.0", ("Too many connections from your address, try again later",))
            # Without an answer it may have been noted all the same.
            self._inside[session] = key, name
        return PASS

    async def handle_DISCONNECT(
        self, server: HookServer, session: Session, envelope: Envelope, reason: Exception
    ) -> None:
        """Make room for another connection."""
        if (entry := self._inside.pop(session, None)) is not None:
            self._leave_late()
            await self._leave(entry)

    async def _leave(self, entry: tuple[str, str]) -> None:
        if not await self._ask(lambda: self._store.leave(*entry)):
            self._left.append(entry)

    def _leave_late(self) -> None:
        """Tell Redis of the connections that ended while it could not be asked."""
        if self._left and monotonic() >= self._not_before:
            entries = tuple(self._left)
            self._left.clear()
            for entry in entries:
                leaving = Deferred.fromCoroutine(self._leave(entry))
                leaving.addErrback(lambda failure: log.failure("an ended connection was not removed", failure))

    async def handle_MAIL(
        self, server: HookServer, session: Session, envelope: Envelope, address: str, mail_options: list[str]
    ) -> Any:
        """Defer a client that has sent too many messages."""
        client = _address(session)
        if client is not None and await self._has_too_many("messages", client, self._messages):
            return Reply(452, "4.7.0", ("Too many messages from your address, try again later",))
        return PASS

    async def handle_RCPT(
        self, server: HookServer, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> Any:
        """Defer a client that has named too many recipients."""
        client = _address(session)
        if client is not None and await self._has_too_many("recipients", client, self._recipients):
            return Reply(452, "4.7.0", ("Too many recipients from your address, try again later",))
        return PASS


def _address(session: Session) -> str | None:
    return limited_address(session.peer[0]) if isinstance(session.peer, tuple) else None
