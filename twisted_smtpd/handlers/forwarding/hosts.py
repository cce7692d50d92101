"""Where messages are forwarded to: one host, or several in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, clientFromString, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Host", "Route", "host_of", "parse_place"]

#: Seconds in which a host that could not be reached is not tried while another one can be.  They double each time.
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0


@dataclass(frozen=True)
class Host:
    """A host, and how to connect to it.

    :ivar where: its name or address; or an endpoint, or the description of one, without ``port``.
    :ivar port: its port.
    :ivar implicit_tls: what verifies its certificate, where TLS comes first.
    :ivar start_tls: what verifies its certificate after STARTTLS.
    """

    where: str | IStreamClientEndpoint
    port: int | None
    implicit_tls: IOpenSSLClientConnectionCreator | None = field(default=None, repr=False)
    start_tls: IOpenSSLClientConnectionCreator | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return str(self.where) if self.port is None else f"{self.where}:{self.port}"

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """How to connect."""
        if not isinstance(self.where, str):
            endpoint = self.where
        elif self.port is not None:
            endpoint = HostnameEndpoint(reactor, self.where, self.port)
        else:
            endpoint = clientFromString(reactor, self.where)
        return endpoint if self.implicit_tls is None else wrapClientTLS(self.implicit_tls, endpoint)


def host_of(
    where: str | IStreamClientEndpoint,
    port: int | None,
    *,
    tls: str | None,
    tls_options: IOpenSSLClientConnectionCreator | None = None,
    tls_hostname: str | None = None,
    tls_ca: str | Path | None = None,
) -> Host:
    """A host that is checked.

    :param where: see :class:`Host`.
    :param port: see :class:`Host`.
    :param tls: ``"starttls"``, ``"implicit"`` or ``None``.
    :param tls_options: verifies the certificate; made of the others if it is ``None``.
    :param tls_hostname: the name that the certificate must have, if not ``where``.
    :param tls_ca: a file with the authorities (PEM) that may have issued it, if not those of this machine.
    :raises ValueError: it can't be used.
    """
    if isinstance(where, str) and port is None:
        # Parsed for its errors only: there may be no reactor yet.
        try:
            clientFromString(None, where)
        except (TypeError, ValueError) as error:
            raise ValueError(f"not an endpoint to connect to: {where!r}: {error}") from None
    if tls is None:
        return Host(where, port)
    if tls_options is None:
        name = tls_hostname or (where if port is not None else None)
        if not isinstance(name, str):
            raise ValueError("tls needs tls_hostname, the name in the next host's certificate")
        # Made now and not with the first message, so that a missing name or file is an error at the start.
        tls_options = optionsForClientTLS(name, trustRoot=None if tls_ca is None else _authorities(Path(tls_ca)))
    return Host(where, port, tls_options, None) if tls == "implicit" else Host(where, port, None, tls_options)


def _authorities(path: Path) -> Any:
    # Imported here: few servers have authorities of their own for the next host.
    from cryptography.hazmat.primitives.serialization import Encoding

    from twisted_smtpd.tls.pem import load_authorities

    blocks = [one.public_bytes(Encoding.PEM) for one in load_authorities(path)]
    return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])


def parse_place(text: str) -> tuple[str, int | None]:
    """A place as the command line has it.

    :param text: ``HOST:PORT``, ``[IPV6]:PORT``, or an endpoint description.
    :returns: host and port; or the description and ``None``.
    :raises ValueError: it has no port.
    """
    if ":" not in text:
        raise ValueError(f"{text!r} has no port: write {text}:25")
    host, _, port = text.rpartition(":")
    if host.strip("[]") and port.isascii() and port.isdigit() and (":" not in host or host.startswith("[")):
        return host.strip("[]"), int(port)
    return text, None


class Route:
    """A host, and whether it could be reached.

    :param host: the host.
    :param reactor: makes the connections.
    :ivar endpoint: how to connect.
    :ivar failures: how often it could not be reached, or did not serve us.
    """

    def __init__(self, host: Host, reactor: Any) -> None:
        self.host = host
        self.endpoint = host.endpoint(reactor)
        self.failures = 0
        self._pause = 0.0
        self._until = 0.0

    def is_up(self, now: float) -> bool:
        """Whether it is tried before hosts that have failed.

        :param now: the time in seconds.
        """
        return now >= self._until

    def succeeded(self) -> None:
        """It serves us."""
        self._pause = self._until = 0.0

    def failed(self, now: float) -> None:
        """It can't be reached, or does not serve us."""
        self.failures += 1
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self._until = now + self._pause
