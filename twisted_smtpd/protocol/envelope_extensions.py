"""ESMTP extensions that are parameters of MAIL and RCPT: what a client asks of the message's delivery.

The server checks the parameters, and the envelope gives their values.  To act on them is the handler's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

from twisted_smtpd.protocol.extensions import Extension
from twisted_smtpd.protocol.settings import ParameterCheck, SharedSettings
from twisted_smtpd.protocol.view import ClientView
from twisted_smtpd.wire.parameters import (
    parse_deliver_by,
    parse_envid,
    parse_hold_for,
    parse_hold_until,
    parse_notify,
    parse_orcpt,
    parse_priority,
    parse_ret,
    parse_valid_since,
)
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = [
    "DSN",
    "ON_REQUEST",
    "RRVS",
    "DeliverBy",
    "Expansion",
    "FutureRelease",
    "Limits",
    "MTPriority",
    "RemoteQueue",
]

# RFC 9422 section 4: a limit has at most six digits.
MAX_LIMIT = 999_999


class DSN(Extension):
    """DSN (RFC 3461): which delivery status notifications the sender wants."""

    name = "DSN"
    optional = True
    varies_with = ()
    # The RFC leaves command lines as long as they were, and allows ENVID 100 octets, ORCPT 500.
    growth = MappingProxyType(
        {"MAIL": len(" RET=HDRS ENVID=") + 100, "RCPT": len(" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=") + 500}
    )
    mail_parameters = MappingProxyType(
        {"RET": lambda server, value: parse_ret(value), "ENVID": lambda server, value: parse_envid(value)}
    )

    @staticmethod
    def _check_orcpt(server: ClientView, value: str | None) -> None:
        if not (value or "").isascii() and not server.envelope.smtp_utf8:
            # RFC 6533 section 3: only where the server has been asked for SMTPUTF8.
            raise SMTPReplyError(501, "5.5.4", "An ORCPT beyond ASCII needs SMTPUTF8")
        parse_orcpt(value)

    rcpt_parameters = MappingProxyType({"NOTIFY": lambda server, value: parse_notify(value), "ORCPT": _check_orcpt})

    def keyword(self, server: ClientView) -> str | None:
        return "DSN"

    def refuse(self, server: ClientView, value: str | None) -> None:
        # As Postfix says it: some clients send NOTIFY without having been offered DSN, and look for this.
        raise SMTPReplyError(501, "5.7.1", "DSN support is disabled")


class Limits(Extension):
    """LIMITS (RFC 9422): how many messages a session may have, and recipients a message."""

    name = "LIMITS"
    optional = True
    varies_with = ("max_recipients",)

    def keyword(self, server: ClientView) -> str | None:
        calls = server._settings.call_limits
        limits = {"RCPTMAX": server.max_recipients}
        if calls is not None:
            limits["MAILMAX"] = calls.get("MAIL", calls["*"])
        words = [f"{name}={limit}" for name, limit in sorted(limits.items()) if limit <= MAX_LIMIT]
        return " ".join(("LIMITS", *words)) if words else None


class MTPriority(Extension):
    """MT-PRIORITY (RFC 6710): how urgent a message is.

    :param profile: the name of the priority profile in use, if the clients are to be told.
    """

    name = "MT-PRIORITY"
    optional = True
    varies_with = ()
    growth = MappingProxyType({"MAIL": len(" MT-PRIORITY=-9")})
    mail_parameters = MappingProxyType({"MT-PRIORITY": lambda server, value: parse_priority(value)})

    def __init__(self, profile: str = "") -> None:
        self.profile = profile

    def keyword(self, server: ClientView) -> str | None:
        return f"MT-PRIORITY {self.profile}".rstrip()


class DeliverBy(Extension):
    """DELIVERBY (RFC 2852): how soon a message has to be delivered.

    :param least: the fewest seconds that a message may be given before it is returned; 0 for no bound.
    """

    name = "DELIVERBY"
    optional = True
    varies_with = ()
    growth = MappingProxyType({"MAIL": 17})

    def __init__(self, least: int = 0) -> None:
        self.least = least
        self.mail_parameters: Mapping[str, ParameterCheck] = MappingProxyType({"BY": self._check})

    def keyword(self, server: ClientView) -> str | None:
        return f"DELIVERBY {self.least}" if self.least else "DELIVERBY"

    def _check(self, server: ClientView, value: str | None) -> None:
        wanted = parse_deliver_by(value)
        if wanted.mode == "R" and wanted.seconds < self.least:
            raise SMTPReplyError(553, "5.4.7", f"A message is given {self.least} seconds at least")


class FutureRelease(Extension):
    """FUTURERELEASE (RFC 4865): a message that is to be held for a time.

    :param most: the seconds that a message may be held.
    """

    name = "FUTURERELEASE"
    optional = True
    exclusive = (frozenset({"HOLDFOR", "HOLDUNTIL"}),)
    growth = MappingProxyType({"MAIL": 34})

    def __init__(self, most: int = 30 * 86400) -> None:
        self.most = most
        self.mail_parameters: Mapping[str, ParameterCheck] = MappingProxyType(
            {"HOLDFOR": self._check_interval, "HOLDUNTIL": self._check_time}
        )

    def _latest(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(seconds=self.most)

    def keyword(self, server: ClientView) -> str | None:
        return f"FUTURERELEASE {self.most} {self._latest():%Y-%m-%dT%H:%M:%SZ}"

    def _check_interval(self, server: ClientView, value: str | None) -> None:
        if parse_hold_for(value) > self.most:
            raise self._too_long()

    def _check_time(self, server: ClientView, value: str | None) -> None:
        if parse_hold_until(value) > self._latest():
            raise self._too_long()

    def _too_long(self) -> SMTPReplyError:
        return SMTPReplyError(501, "5.5.4", f"A message is held for {self.most} seconds at most")


class RRVS(Extension):
    """RRVS (RFC 7293): a message for the owner that a mailbox had at a certain time."""

    name = "RRVS"
    optional = True
    varies_with = ()
    growth = MappingProxyType({"RCPT": 33})
    rcpt_parameters = MappingProxyType({"RRVS": lambda server, value: parse_valid_since(value)})

    def keyword(self, server: ClientView) -> str | None:
        return "RRVS"


class RemoteQueue(Extension):
    """ETRN (RFC 1985): a client has a queue started; offered where the handler has ``handle_ETRN``."""

    name = "ETRN"
    varies_with = ()

    def in_use(self, settings: SharedSettings) -> bool:
        return "ETRN" in settings.hooks

    def keyword(self, server: ClientView) -> str | None:
        return "ETRN"


class Expansion(Extension):
    """EXPN (RFC 5321 section 3.5.2), where the handler has ``handle_EXPN``."""

    name = "EXPN"
    varies_with = ()

    def in_use(self, settings: SharedSettings) -> bool:
        return "EXPN" in settings.hooks

    def keyword(self, server: ClientView) -> str | None:
        return "EXPN"


#: The extensions that mean something only if the handler acts on them; ``offer_extensions`` names those to offer.
ON_REQUEST: Mapping[str, Any] = MappingProxyType(
    {extension.name: extension for extension in (DeliverBy(), FutureRelease(), MTPriority(), RRVS())}
)
