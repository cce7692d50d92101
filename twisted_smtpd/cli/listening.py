"""The command-line options about where the server listens, and how it stops."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python import usage

from twisted_smtpd.cli.groups import OptionGroup, own_parameter_row
from twisted_smtpd.options.command import COMMAND
from twisted_smtpd.options.reference import default_text, flag_text
from twisted_smtpd.runtime.endpoints import server_endpoint
from twisted_smtpd.runtime.listeners import Listener, UmaskEndpoint
from twisted_smtpd.runtime.places import places_of

__all__ = ["ListenOptions"]


class ListenOptions(OptionGroup):
    """Where the server listens.

    :param reactor: what listens; by default the global reactor, looked up when the options are parsed.
    :ivar listeners: the places, once the options are parsed.
    """

    listeners: Sequence[Listener] = ()

    optParameters: ClassVar[list[list[Any]]] = [own_parameter_row(COMMAND["grace"])]

    def __init__(self, reactor: Any = None) -> None:
        super().__init__()
        self.reactor = reactor
        self._where: list[str] = []

    def opt_listen(self, where: str) -> None:
        self._where.append(where)

    opt_listen.__doc__ = flag_text(COMMAND["listen"])
    opt_l = opt_listen

    @property
    def default_places(self) -> list[str]:
        """Where to listen without ``--listen``."""
        return [default_text(COMMAND["listen"])]

    def postOptions(self) -> None:
        super().postOptions()
        self.listeners = self.places("listen", self._where or self.default_places)

    def places(self, option: str, wheres: Sequence[str]) -> list[Listener]:
        """The places that the values of an option name.

        :param option: the option, without dashes.
        :param wheres: its values.
        :raises usage.UsageError: a value is not a place.
        """
        return [
            Listener(place.name, self._endpoint(option, where, place.description), place.optional)
            for where in wheres
            for place in places_of(option, where)
        ]

    def listening_reactor(self, option: str) -> Any:
        """The reactor, or what stands in for it, that listens on the places of an option.

        :param option: the option, without dashes.
        """
        if self.reactor is None:
            # Importing it installs the default reactor, which must not happen before `twist --reactor` is obeyed.
            from twisted.internet import reactor

            self.reactor = reactor
        return self.reactor

    def _endpoint(self, option: str, where: str, description: str) -> IStreamServerEndpoint:
        reactor = self.listening_reactor(option)
        try:
            if (described := UmaskEndpoint.for_description(reactor, description)) is not None:
                return described
            endpoint: IStreamServerEndpoint = server_endpoint(reactor, description)
        except Exception as error:  # each endpoint type has a parser of its own, with errors of its own
            if description.startswith("systemd:") and isinstance(error, (IndexError, KeyError)):
                raise usage.UsageError(
                    f"--{option}: {where!r}: systemd has passed no such socket (LISTEN_FDS): the server has to be "
                    "started by the .socket unit"
                ) from None
            reason = _reason(error)
            raise usage.UsageError(
                f"--{option}: {where!r} is neither HOST:PORT nor an endpoint description: {reason}"
            ) from None
        return endpoint


def _reason(error: Exception) -> str:
    """What is wrong with an endpoint description; its parser is called with its parts as arguments."""
    if isinstance(error, TypeError):
        if missing := re.search(r"missing .* arguments?: (.*)", str(error)):
            parts = re.sub(r"'(\w+)'", r"\1=", missing[1])
            return f"it lacks {parts}"
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
            return f"there is no {unknown[1]}= in it"
    if "descriptor index or name" in str(error):
        return "write systemd:domain=INET:index=0"
    return f"{type(error).__name__}: {error}"
