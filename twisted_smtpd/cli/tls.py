"""The command-line options about TLS."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.logger import Logger
from twisted.python import usage

from twisted_smtpd.cli.groups import flag_row, own_parameter_row, parameter_row
from twisted_smtpd.cli.listening import ListenOptions
from twisted_smtpd.options.command import COMMAND
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
        ["requiretls", None, "With --tls-self-signed: take no mail without TLS."],
        *(flag_row(COMMAND[name]) for name in ("implicit-tls", "tls-self-signed", "tls-rsa")),
    ]
    optParameters: ClassVar[list[list[Any]]] = [
        parameter_row(TABLE["ssl_context"]),
        *(own_parameter_row(COMMAND[name]) for name in ("smtpskey", "tls-client-ca", "tls-minimum", "tls-write-to")),
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
        self._key.append(path)

    opt_tlskey.__doc__ = flag_text(COMMAND["tlskey"])

    def opt_listen_tls(self, where: str) -> None:
        self._tls_where.append(where)

    opt_listen_tls.__doc__ = flag_text(COMMAND["listen-tls"])

    @property
    def default_places(self) -> list[str]:
        return [] if self._tls_where else super().default_places

    def postOptions(self) -> None:
        super().postOptions()
        if self["requiretls"] and self["no-requiretls"]:
            raise usage.UsageError("--requiretls and --no-requiretls contradict each other")
        self._tls = self._make_tls()
        implicit = self._make_implicit()
        if self["implicit-tls"]:
            if implicit is not None:
                raise usage.UsageError("--implicit-tls and --smtpscert contradict each other")
            if self._tls is None:
                raise usage.UsageError("--implicit-tls needs --tlscert or --tls-self-signed")
            implicit = self._tls
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
        for name in ("tls-write-to", "tls-rsa", "requiretls"):
            if self[name]:
                raise usage.UsageError(f"--{name} needs --tls-self-signed")
        if self._key and len(self._key) != len(self._cert):
            raise usage.UsageError("--tlscert and --tlskey go together, one key for each certificate")
        if not self._cert:
            if self["no-requiretls"]:
                raise usage.UsageError("--no-requiretls needs --tlscert")
            return None
        keys: list[str] | list[None] = self._key or [None] * len(self._cert)
        return self._certificates("tlscert", list(zip(self._cert, keys, strict=True)))

    def _make_implicit(self) -> ServerCertificates | SelfSigned | None:
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
            certificates = ServerCertificates(
                files, client_ca=self["tls-client-ca"], minimum_version=self._minimum_version()
            )
        except TLSConfigurationError as error:
            raise usage.UsageError(f"--{option}: {error}") from None
        self.certificates.append(certificates)
        return certificates

    def _minimum_version(self) -> Any:
        from ssl import TLSVersion

        version = TLSVersion[f"TLSv{self['tls-minimum'].replace('.0', '').replace('.', '_')}"]
        if version < TLSVersion.TLSv1_2:
            log.warn(
                "TLS {version} IS ALLOWED: it can be broken (RFC 8996).  Allow it for old devices only, on a port of "
                "their own",
                version=self["tls-minimum"],
            )
        return version

    def _self_signed(self) -> SelfSigned | ServerCertificates:
        from twisted_smtpd.tls import TLSConfigurationError, self_signed
        from twisted_smtpd.tls.trial import written

        name, folder, rsa = self["hostname"] or "localhost", self["tls-write-to"], bool(self["tls-rsa"])
        try:
            if folder is not None and not self.dry:
                files = written(folder, name, rsa=rsa)
                log.warn(
                    "TLS has a THROW-AWAY CERTIFICATE, for trying things out only: clients trust it with {ca}",
                    ca=files.authority,
                )
                return self._certificates("tls-write-to", [(str(files.certificate), str(files.key))])
            made = self_signed(name, rsa=rsa, minimum_version=self._minimum_version())
        except TLSConfigurationError as error:
            raise usage.UsageError(f"--tls-self-signed: {error}") from None
        log.warn("TLS has a THROW-AWAY CERTIFICATE that no client can check: for trying things out only")
        return made

    def server_options(self) -> dict[str, Any]:
        options = super().server_options()
        if self._tls is not None:
            options["tls_context"] = self._tls
            # No client need trust a throw-away certificate, so TLS is not required with it.
            options["require_starttls"] = bool(
                self["requiretls"] if self["tls-self-signed"] else not self["no-requiretls"]
            )
        return options
