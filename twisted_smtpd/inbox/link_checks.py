"""Asks for the links of a message, when a person wants that: which of them lead nowhere.

The links come from anybody, so no address is asked that only this machine or its network can reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.ssl import optionsForClientTLS
from twisted.web.client import URI, Agent, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from twisted_smtpd import __version__
from twisted_smtpd.handlers.web import ReadPast

__all__ = ["LinkChecker", "LinkResult", "is_public"]

#: Links of a message that are asked for, and how many at the same time.
MAX_LINKS = 50
AT_ONCE = 4
#: Seconds for one link, and redirections that are followed.
TIMEOUT = 10.0
MAX_REDIRECTIONS = 5

# They lead to IPv4 addresses, private ones as well: mapped and translated ones (RFC 4291, 6052, 8215), 6to4, Teredo.
_TO_IPV4 = tuple(
    map(ip_network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
)


def is_public(address: str) -> bool:
    """Whether an address is one of the internet: not of this machine, its network, or a special one.

    :param address: an IPv4 or IPv6 address.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and any(ip in network for network in _TO_IPV4):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


@dataclass(frozen=True)
class LinkResult:
    """What became of a link.

    :ivar url: the link.
    :ivar status: the HTTP status of the last answer, 0 if there was none.
    :ivar text: what happened, for people.
    """

    url: str
    status: int
    text: str

    @property
    def is_good(self) -> bool:
        """Whether it leads somewhere."""
        return 200 <= self.status < 400


@implementer(IResolutionReceiver)
class _PublicOnly:
    """Passes on the addresses of a name that are public."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolution)

    def addressResolved(self, address: IAddress) -> None:
        if is_public(getattr(address, "host", "")):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()


@implementer(IHostnameResolver)
class _PublicResolver:
    """Resolves names: what is connected to is what was looked at, whatever a second answer of DNS would say."""

    def __init__(self, resolver: Any) -> None:
        self._resolver = resolver

    def resolveHostName(self, resolutionReceiver: Any, *arguments: Any, **options: Any) -> Any:
        return self._resolver.resolveHostName(_PublicOnly(resolutionReceiver), *arguments, **options)


@implementer(IReactorPluggableNameResolver)
class _PublicReactor:
    """A reactor whose names have public addresses only."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.nameResolver = _PublicResolver(reactor.nameResolver)

    def installNameResolver(self, resolver: Any) -> Any:
        return self._reactor.installNameResolver(resolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, reactor: Any) -> None:
        self._reactor = _PublicReactor(reactor)

    def endpointForURI(self, uri: URI) -> Any:
        host = uri.host.decode("ascii")
        # HostnameEndpoint does not ask the resolver about an address.
        if _is_address(host) and not is_public(host.strip("[]")):
            raise DNSLookupError("its address is not public")
        endpoint = HostnameEndpoint(self._reactor, host, uri.port, timeout=TIMEOUT)
        return wrapClientTLS(optionsForClientTLS(host), endpoint) if uri.scheme == b"https" else endpoint


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


class LinkChecker:
    """Asks for links.

    :param reactor: what connects.
    :param agent: makes the requests, if not one of ours.
    """

    def __init__(self, reactor: Any, agent: Any = None) -> None:
        self._reactor = reactor
        self._agent = agent or Agent.usingEndpointFactory(reactor, _Endpoints(reactor))
        self._places = DeferredSemaphore(AT_ONCE)

    async def check(self, links: Sequence[str]) -> list[LinkResult]:
        """Ask for each of the links, the first 50 of them.

        :returns: what became of them, in their order.
        """
        running = [self._places.run(self._one, link) for link in links[:MAX_LINKS]]
        found: list[LinkResult] = await gatherResults(running)
        return found

    def _one(self, link: str) -> Deferred[LinkResult]:
        asking = Deferred.fromCoroutine(self._follow(link))
        asking.addTimeout(TIMEOUT, self._reactor, lambda _, seconds: LinkResult(link, 0, f"no answer in {seconds:g} s"))
        return asking

    async def _follow(self, link: str) -> LinkResult:
        url = link
        for _ in range(MAX_REDIRECTIONS + 1):
            try:
                status, location = await self._ask(url)
            except Exception as error:  # TLS, DNS, URLs that are none and servers that are none have many kinds
                return LinkResult(link, 0, _reason(error))
            if not (300 <= status < 400 and location):
                where = "" if url == link else f", after it led to {url[:300]}"
                return LinkResult(link, status, f"{status}{where}")
            url = urljoin(url, location)
            if urlsplit(url).scheme not in ("http", "https"):
                return LinkResult(link, 0, f"it leads to {url[:300]}")
        return LinkResult(link, 0, f"more than {MAX_REDIRECTIONS} redirections")

    async def _ask(self, url: str) -> tuple[int, str]:
        headers = Headers({b"user-agent": [f"twisted-smtpd/{__version__} (link check)".encode()]})
        # Some servers have no HEAD; of a GET only the beginning is read.
        response = await self._agent.request(b"GET", url.encode("ascii"), headers)
        reading = ReadPast()
        response.deliverBody(reading)
        reading.done.addErrback(lambda _: None).cancel()
        location = response.headers.getRawHeaders(b"location", [b""])[0]
        return response.code, location.decode("utf-8", "replace")


def _reason(error: Exception) -> str:
    if isinstance(error, (ResponseFailed, ResponseNeverReceived)) and error.reasons:
        inner = error.reasons[0].value
        error = inner if isinstance(inner, Exception) else error
    if isinstance(error, DNSLookupError):
        return "its name has no public address"
    if isinstance(error, ConnectError):
        return "no connection"
    if isinstance(error, UnicodeError):
        return "it has characters that a link must not have"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]
