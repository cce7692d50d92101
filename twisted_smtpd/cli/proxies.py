"""The command-line options about hosts that speak for clients: proxies (PROXY) and mail servers (XCLIENT)."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.python import usage

from twisted_smtpd.cli.groups import OptionGroup, parameter_row
from twisted_smtpd.options.networks import Networks
from twisted_smtpd.options.reference import flag_text
from twisted_smtpd.options.table import TABLE

__all__ = ["TrustOptions"]


class TrustOptions(OptionGroup):
    """Which hosts may say who the client is."""

    optParameters: ClassVar[list[list[Any]]] = [parameter_row(TABLE["proxy_protocol_timeout"])]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._proxy_from: list[str] = []
        self._xclient_from: list[str] = []

    def opt_proxy_from(self, network: str) -> None:
        self._proxy_from.append(_network("proxy-from", network))

    opt_proxy_from.__doc__ = flag_text(TABLE["proxy_from"])

    def opt_xclient_from(self, network: str) -> None:
        self._xclient_from.append(_network("xclient-from", network))

    opt_xclient_from.__doc__ = flag_text(TABLE["xclient_from"])

    @property
    def trusts_unix(self) -> bool:
        """Whether the word of a Unix socket's peer is taken for who the client is."""
        return any("" in Networks(networks) for networks in (self._proxy_from, self._xclient_from))

    def postOptions(self) -> None:
        super().postOptions()
        if self["proxy-timeout"] is not None and not self._proxy_from:
            raise usage.UsageError("--proxy-timeout needs --proxy-from")

    def server_options(self) -> dict[str, Any]:
        options = super().server_options()
        if self._proxy_from:
            options["proxy_from"] = tuple(self._proxy_from)
            options["proxy_protocol_timeout"] = self["proxy-timeout"]
        if self._xclient_from:
            options["xclient_from"] = tuple(self._xclient_from)
        return options


def _network(option: str, text: str) -> str:
    try:
        Networks([text])
    except ValueError as error:
        raise usage.UsageError(f"--{option}: {error}") from None
    return text
