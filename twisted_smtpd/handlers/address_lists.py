"""Lists of addresses: in a file, as a pattern, or known to a web service."""

from __future__ import annotations

import os
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from twisted_smtpd.runtime.files import mark_of, open_at_once
from twisted_smtpd.runtime.reactors import in_thread, wait_for

if TYPE_CHECKING:
    from twisted.web.iweb import IAgent

__all__ = ["AddressList", "FileList", "NotKnown", "PatternList", "ServiceList", "address_list"]

log = Logger()

# Octets of a file.
MAX_FILE = 2**26
# Seconds between two looks at whether a file has changed, at least.
LOOK_EVERY = 1.0
# Characters of an address that is compared with a pattern: a local part of 64, an @ and a domain of 255.
MAX_ADDRESS = 320

# Requests at the same time, and those that wait for them.
MAX_REQUESTS = 10
MAX_WAITING = 200
# Answers that are remembered.
MAX_ANSWERS = 10_000
# Requests in a row that fail until a web service is left alone, and the seconds for which it is.
MAX_FAILURES = 5
PAUSE = 30.0

ADDRESS = "{address}"


class NotKnown(Exception):
    """Whether an address is listed can't be found out now."""


class AddressList(Protocol):
    """A list of addresses."""

    async def has(self, address: str) -> bool:
        """Whether an address is on the list.

        :raises NotKnown: that can't be found out now.
        """

    async def reload(self) -> None:
        """Read it again, if it is read at all."""

    async def stop(self) -> None:
        """Close what it holds."""


def address_list(text: str, **service: Any) -> AddressList:
    """The list that a text names.

    :param text: ``file:PATH``, ``regex:PATTERN``, or a URL with ``{address}`` in it.
    :param service: the keyword arguments of :class:`ServiceList`.
    :raises ValueError: it is none of these, or malformed.
    :raises OSError: the file can't be read.
    """
    kind, _, rest = text.partition(":")
    if kind == "file" and rest:
        return FileList(rest)
    if kind == "regex" and rest:
        return PatternList(rest)
    if kind in ("http", "https"):
        return ServiceList(text, **service)
    # Not repeated: a URL may have a token in it.
    raise ValueError(f"a list is file:PATH, regex:PATTERN or https://HOST/…{ADDRESS}…")


class FileList:
    """A file with an address or a domain on each line.

    A domain, with or without an ``@`` before it, stands for all its addresses.  Case does not count.  Empty lines and
    lines that begin with ``#`` are ignored.  The file is read again when it has changed; if that fails, what was read
    before holds.

    :param path: the file.
    :raises OSError: it can't be read.
    :raises ValueError: it is no such file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._entries, self._mark = _read(self.path)
        self._next_look = 0.0
        self._reading = False
        self._reported = ""

    def __repr__(self) -> str:
        return f"<file {self.path}>"

    async def has(self, address: str) -> bool:
        await self._look()
        address = address.casefold()
        return address in self._entries or address.rpartition("@")[2] in self._entries

    async def _look(self) -> None:
        """Read the file again, if it has changed."""
        now = time.monotonic()
        if now < self._next_look or self._reading:
            return
        self._next_look = now + LOOK_EVERY
        try:
            changed = mark_of(os.stat(self.path)) != self._mark
        except OSError:
            changed = True
        if changed:
            await self.reload()

    async def reload(self) -> None:
        self._reading = True
        try:
            self._entries, self._mark = await wait_for(in_thread(_read, self.path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if reason != self._reported:
                self._reported = reason
                log.error("{path} can't be read, what was read before holds: {reason}", path=self.path, reason=reason)
        else:
            self._reported = ""
            log.info("read {path} again: {number} entries", path=self.path, number=len(self._entries))
        finally:
            self._reading = False

    async def stop(self) -> None:
        """Nothing is open."""


def _read(path: Path) -> tuple[frozenset[str], tuple[int, ...]]:
    with open(path, "rb", opener=open_at_once) as file:
        mark = mark_of(os.fstat(file.fileno()))
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ValueError(f"{path}: it is larger than {MAX_FILE:,} octets")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: it is not UTF-8") from None
    entries = set()
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip().casefold()
        if not entry or entry.startswith("#"):
            continue
        if any(map(str.isspace, entry)) and not entry.startswith('"'):
            raise ValueError(f"{path}, line {number}: a line has one address or domain")
        local, at, domain = entry.rpartition("@")
        if at and not domain:
            raise ValueError(f"{path}, line {number}: there is no domain behind the @")
        entries.add(entry if local else domain)
    return frozenset(entries), mark


class PatternList:
    """The addresses that a regular expression matches as a whole.  Case does not count.

    :param pattern: the expression, see :mod:`re`.
    :raises ValueError: it is malformed.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern, re.IGNORECASE)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"regex: {error}") from None

    def __repr__(self) -> str:
        return f"<regex {self._pattern.pattern}>"

    async def has(self, address: str) -> bool:
        # A pattern may take a time that grows fast with the length.
        return len(address) <= MAX_ADDRESS and self._pattern.fullmatch(address) is not None

    async def reload(self) -> None:
        """It is read once."""

    async def stop(self) -> None:
        """Nothing is open."""


class ServiceList:
    """A web service that is asked about each address: 2xx is yes, 404 and 410 are no, and all else is no answer.

    Answers are remembered for some time.  After five failures in a row the service is left alone for half a minute;
    then one request finds out whether it is back.

    :param url: an ``https:`` or ``http:`` URL with ``{address}`` where the address belongs, which is percent-encoded.
        Only its scheme and host are ever logged.
    :param timeout: seconds until there has to be an answer.
    :param cache: seconds for which an answer is remembered; 0 for not at all.
    :param headers: more headers for the request; they are not logged.
    :param agent: makes the requests; by default an :class:`twisted.web.client.Agent` that the list makes.
    :param reactor: the reactor, if not the global one.
    :raises ValueError: the URL is malformed, or a number is out of bounds.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        cache: float = 60.0,
        headers: Mapping[str, str] | None = None,
        agent: IAgent | None = None,
        reactor: Any = None,
    ) -> None:
        # Imported here: it brings twisted.web along, which the other lists do not need.
        from twisted_smtpd.handlers.web import Connections, checked_url

        if ADDRESS not in url.partition("://")[2].partition("/")[2]:
            raise ValueError(f"the URL has no {ADDRESS} in its path or query")
        self._where = checked_url(url.replace(ADDRESS, "a"))[1]
        self._url = url.partition("#")[0]
        if not 0 < timeout <= 60 or not 0 <= cache <= 86400:
            raise ValueError("the timeout is between 0 and 60 seconds, and the cache between 0 and 86,400")
        self._timeout, self._cache = timeout, cache
        self._headers = {"user-agent": "twisted-smtpd", **(headers or {})}
        self._connections = Connections(MAX_REQUESTS, timeout, agent, reactor)
        self._slots = DeferredSemaphore(MAX_REQUESTS)
        self._answers: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._asked: dict[str, list[Deferred[bool]]] = {}
        self._failures = 0
        self._resumes = 0.0

    def __repr__(self) -> str:
        return f"<service {self._where}>"

    async def has(self, address: str) -> bool:
        now = self._connections.clock.seconds()
        expires, answer = self._answers.get(address, (0.0, False))
        if now < expires:
            return answer
        waiter: Deferred[bool] = Deferred()
        if address in self._asked:
            self._asked[address].append(waiter)
            return await wait_for(waiter)  # type: ignore[no-any-return]
        if len(self._asked) >= MAX_WAITING:
            raise NotKnown("too many requests wait")
        if self._failures >= MAX_FAILURES:
            if now < self._resumes:
                raise NotKnown("the service is left alone for a while")
            # This one finds out; the others wait until it has.
            self._resumes = now + max(PAUSE, self._timeout)
        self._asked[address] = [waiter]
        # Of its own, so that a client that goes away does not end what others wait for.
        Deferred.fromCoroutine(self._find_out(address))
        return await wait_for(waiter)  # type: ignore[no-any-return]

    async def _find_out(self, address: str) -> None:
        asking: Deferred[int] = self._slots.run(lambda: Deferred.fromCoroutine(self._request(address)))
        code, reason = 0, ""
        try:
            code = await asking.addTimeout(self._timeout, self._connections.clock)
        except Exception as error:
            from twisted_smtpd.handlers.web import kind_of

            reason = kind_of(error)
        waiters = self._asked.pop(address)
        if 200 <= code < 300 or code in (404, 410):
            if self._failures >= MAX_FAILURES:
                log.info("{list} answers again", list=self)
            self._failures = 0
            self._remember(address, code < 300)
            for waiter in waiters:
                if not waiter.called:
                    waiter.callback(code < 300)
            return
        self._failed(reason or f"HTTP status {code}")
        for waiter in waiters:
            if not waiter.called:
                waiter.errback(NotKnown(reason))

    def _failed(self, reason: str) -> None:
        self._failures += 1
        log.warn("{list} does not answer: {reason}", list=self, reason=reason)
        if self._failures == MAX_FAILURES:
            self._resumes = self._connections.clock.seconds() + PAUSE
            log.error("{list} is left alone for {seconds:.0f} seconds", list=self, seconds=PAUSE)

    def _remember(self, address: str, answer: bool) -> None:
        if not self._cache:
            return
        self._answers.pop(address, None)
        self._answers[address] = (self._connections.clock.seconds() + self._cache, answer)
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)

    async def _request(self, address: str) -> int:
        url = self._url.replace(ADDRESS, quote(address, safe="", errors="replace")).encode()
        # The status is the answer, whether the rest arrives or not.
        code, _ = await self._connections.request(b"GET", url, self._headers)
        return code

    async def reload(self) -> None:
        """Ask anew about each address."""
        self._answers.clear()

    async def stop(self) -> None:
        await self._connections.close()
