"""The command-line options about failures on demand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.logger import Logger
from twisted.python import usage

from twisted_smtpd.cli.groups import own_parameter_row
from twisted_smtpd.cli.tls import TLSOptions
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.options.command import COMMAND
from twisted_smtpd.smtp import SMTP

if TYPE_CHECKING:
    from twisted_smtpd.testing.failures import Failures

__all__ = ["FailureOptions"]

log = Logger()


class FailureOptions(TLSOptions):
    """What goes wrong on purpose.

    :ivar failures: that, once the options are parsed; ``None`` if nothing does.
    """

    failures: Failures | None = None

    optParameters: ClassVar[list[list[Any]]] = [own_parameter_row(COMMAND["fail-seed"])]

    def __init__(self, reactor: Any = None) -> None:
        super().__init__(reactor)
        self._fail: list[str] = []

    def opt_fail(self, text: str) -> None:
        self._fail.append(text)

    opt_fail.__doc__ = COMMAND["fail"].help

    def postOptions(self) -> None:
        super().postOptions()
        if not self._fail:
            return
        # Imported here: servers that are not for tests do not need it.
        from twisted_smtpd.testing.failures import Failures, parse_failure

        if self["workers"] > 1:
            raise usage.UsageError("--fail: not with --workers, which would count separately")
        self.failures = Failures()
        for number, text in enumerate(self._fail):
            try:
                self.failures.add(parse_failure(text, self["fail-seed"] + number))
            except ValueError as error:
                raise usage.UsageError(f"--fail: {error}") from None
        self._prepare()
        log.warn("--fail: this server fails on purpose: {failures}", failures=", ".join(self._fail))

    def _prepare(self) -> None:
        """Refuse failures that can't happen, and have TLS fail where that is asked for."""
        # Here and below, as above.
        from twisted_smtpd.testing.failures import PLACES

        assert self.failures is not None
        places = {failure.where for failure in self.failures}
        if "TLS" in places and self._tls is None and all(listener.tls is None for listener in self.listeners):
            raise usage.UsageError("--fail: TLS can't fail without --tlscert or --tls-self-signed")
        for where in places:
            if where != "*" and where not in PLACES and not hasattr(LMTP, f"smtp_{where}"):
                raise usage.UsageError(f"--fail: {where} is neither a command nor one of {', '.join(PLACES)}")
        if "TLS" in places:
            self.listeners = [
                replace(listener, tls=self._failing(listener.tls)) if listener.tls is not None else listener
                for listener in self.listeners
            ]

    def _failing(self, good: Any) -> Any:
        """TLS that fails where it is to."""
        from twisted_smtpd.testing.tls import FailingTLS
        from twisted_smtpd.tls import connection_creator

        assert self.failures is not None
        return FailingTLS(connection_creator(good), ("localhost", "127.0.0.1", "::1"), self.failures)

    def server_options(self) -> dict[str, Any]:
        options = super().server_options()
        if self.failures is not None and any(failure.where == "TLS" for failure in self.failures):
            options = {
                name: self._failing(value) if name in ("tls_context", "ssl_context") and value is not None else value
                for name, value in options.items()
            }
        return options

    def protocol(self) -> type[SMTP]:
        """The class of the connections."""
        lmtp = bool(self["lmtp"])
        if self.failures is None:
            return LMTP if lmtp else SMTP
        from twisted_smtpd.testing.protocol import failing

        return failing(self.failures, lmtp)
