"""AUTH as an ESMTP extension (RFC 4954 section 3)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from twisted_smtpd.auth.offer import MAX_AUTH_LINE, usable_names
from twisted_smtpd.auth.view import AuthClient
from twisted_smtpd.protocol.extensions import Extension
from twisted_smtpd.protocol.settings import SharedSettings
from twisted_smtpd.wire.commands import parse_mailbox, xtext_decode
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["Auth"]


class Auth(Extension):
    """AUTH (RFC 4954)."""

    name = "AUTH"
    # RFC 4954 section 3 has 500 octets for the parameter.  AUTH itself should stay short, but clients send tokens of
    # 2 KB with it; so it may be as long as what follows a challenge.
    growth = MappingProxyType({"MAIL": 500, "AUTH": MAX_AUTH_LINE - 512})

    def in_use(self, settings: SharedSettings) -> bool:
        return bool(settings.mechanisms)

    def keyword(self, server: AuthClient) -> str | None:  # type: ignore[override]
        names = usable_names(server)
        return " ".join(("AUTH", *names)) if names else None

    @staticmethod
    def _check(server: Any, value: str | None) -> None:
        # RFC 4954 section 5: <>, or the mailbox of the message's submitter; from a client that has not authenticated it
        # is to be treated as <>, so what it says does not matter.
        if not server.session.authenticated:
            server.envelope.submitter = ""
            return
        try:
            submitter = "" if value == "<>" else parse_mailbox(xtext_decode(value or ""))
        except SMTPReplyError:
            raise SMTPReplyError(501, "5.5.4", "AUTH is <> or a mailbox in xtext") from None
        server.envelope.submitter = submitter

    mail_parameters = MappingProxyType({"AUTH": _check})
