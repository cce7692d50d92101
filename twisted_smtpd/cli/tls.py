"""The command-line options about TLS."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.logger import Logger
from twisted.python import usage

from twisted_smtpd.cli.groups import flag_row, parameter_row
from twisted_smtpd.cli.listening import ListenOptions
from twisted_smtpd.options.reference import flag_text
from twisted_smtpd.options.table import TABLE

if TYPE_CHECKING:
    from twisted_smtpd.tls import SelfSigned, ServerCertificates

__all__ = ["TLSOptions"]

log = Logger()


class TLSOptions(ListenOptions):
    """Certificates, and which listeners speak TLS.

    :ivar certificates: the certificates that can be reloaded, once the options are parsed.
    """

    optFlags: ClassVar[list[list[str | None]]] = [
        flag_row(TABLE["require_starttls"]),
        ["tls-self-signed", None, "Offer TLS with a throw-away certificate, which clients don't trust: to try things."],
    ]
    optParameters: ClassVar[list[list[Any]]] = [
        parameter_row(TABLE["ssl_context"]),
        ["smtpskey", None, None, "The key for --smtpscert."],
        ["tls-client-ca", None, None, "Ask clients for certificates of the authorities in this file (PEM)."],
    ]

    def __init__(self, reactor: Any = None) -> None:
        super().__init__(reactor)
        self.certificates: list[ServerCertificates] = []
        self._tls: ServerCertificates | SelfSigned | None = None
        self._tls_where: list[str] = []
        self._cert: list[str] = []
        self._key: list[str] = []

    def opt_tlscert(self, path: str) -> None:
        self._cert.append(path)

    opt_tlscert.__doc__ = flag_text(TABLE["tls_context"])

    def opt_tlskey(self, path: str) -> None:
        """The key for --tlscert; not needed where the certificate's file has it."""
        self._key.append(path)

    def opt_listen_tls(self, where: str) -> None:
        """As --listen, with TLS from the start (port 465); may be repeated."""
        self._tls_where.append(where)

    @property
    def default_places(self) -> list[str]:
        return [] if self._tls_where else super().default_places

    def postOptions(self) -> None:
        super().postOptions()
        self._tls = self._make_tls()
        implicit = self._make_implicit()
        if implicit is not None:
            self.listeners = [replace(listener, tls=implicit) for listener in self.listeners]
        if self._tls_where:
            creator = self._tls or implicit
            if creator is None:
                raise usage.UsageError("--listen-tls needs --tlscert, --smtpscert or --tls-self-signed")
            places = self.places("listen-tls", self._tls_where)
            self.listeners = [*self.listeners, *(replace(place, tls=creator) for place in places)]
        if self["tls-client-ca"] is not None and not self.certificates:
            raise usage.UsageError("--tls-client-ca needs --tlscert or --smtpscert")

    def _make_tls(self) -> ServerCertificates | SelfSigned | None:
        """The certificates of --tlscert or --tls-self-signed."""
        if self["tls-self-signed"]:
            if self._cert or self._key:
                raise usage.UsageError("--tls-self-signed and --tlscert contradict each other")
            return self._self_signed()
        if self._key and len(self._key) != len(self._cert):
            raise usage.UsageError("--tlscert and --tlskey go together, one key for each certificate")
        if not self._cert:
            if self["no-requiretls"]:
                raise usage.UsageError("--no-requiretls needs --tlscert")
            return None
        keys: list[str] | list[None] = self._key or [None] * len(self._cert)
        return self._certificates("tlscert", list(zip(self._cert, keys, strict=True)))

    def _make_implicit(self) -> ServerCertificates | None:
        """The certificate of --smtpscert."""
        cert, key = self["smtpscert"], self["smtpskey"]
        if cert is None:
            if key is not None:
                raise usage.UsageError("--smtpskey needs --smtpscert")
            return None
        return self._certificates("smtpscert", [(cert, key)])

    def _certificates(self, option: str, files: list[tuple[str, str | None]]) -> ServerCertificates:
        # Here and below, since most servers have no TLS.
        from twisted_smtpd.tls import ServerCertificates, TLSConfigurationError

        try:
            certificates = ServerCertificates(files, client_ca=self["tls-client-ca"])
        except TLSConfigurationError as error:
            raise usage.UsageError(f"--{option}: {error}") from None
        self.certificates.append(certificates)
        return certificates

    def _self_signed(self) -> SelfSigned:
        from twisted_smtpd.tls import TLSConfigurationError, self_signed

        try:
            made = self_signed(self["hostname"] or "localhost")
        except TLSConfigurationError as error:
            raise usage.UsageError(f"--tls-self-signed: {error}") from None
        log.warn("TLS has a THROW-AWAY CERTIFICATE that no client can check: for trying things out only")
        return made

    def server_options(self) -> dict[str, Any]:
        options = super().server_options()
        if self._tls is not None:
            options["tls_context"] = self._tls
            # No client can check a throw-away certificate, so TLS is not required with it.
            options["require_starttls"] = not (self["no-requiretls"] or self["tls-self-signed"])
        return options
