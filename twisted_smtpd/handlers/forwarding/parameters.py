"""Which parameters of MAIL and RCPT go on to the next host, and what it can't be given."""

from __future__ import annotations

import re
from collections.abc import Mapping

from twisted_smtpd.handlers.forwarding.outgoing import Outgoing
from twisted_smtpd.wire.addresses import needs_smtputf8
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

__all__ = ["check_message", "lines_to_offer", "mail_command", "rcpt_command"]

Parameters = Mapping[str, "str | None"]

# Extensions of ours that mean nothing unless the next host has them as well.
_SHARED = frozenset(
    {"8BITMIME", "SMTPUTF8", "DSN", "BINARYMIME", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "RRVS"}
)
# Parameters that go on as they are where the next host has the extension, and are refused where it has not.
_RELIED_ON = {
    "REQUIRETLS": "REQUIRETLS",
    "BY": "DELIVERBY",
    "HOLDFOR": "FUTURERELEASE",
    "HOLDUNTIL": "FUTURERELEASE",
    "MT-PRIORITY": "MT-PRIORITY",
}
_RELIED_ON_BY_RCPT = {"RRVS": "RRVS"}
# BDAT is the only way to send a binary message.
_FOR_BINARY = frozenset({"BINARYMIME", "CHUNKING"})


def _words(parameters: Mapping[str, str | None]) -> str:
    return "".join(f" {key}" if value is None else f" {key}={value}" for key, value in parameters.items())


def _unknown(verb: str, keyword: str) -> SMTPReplyError:
    # The client relies on the parameter, so it can't be left out.
    if keyword == "REQUIRETLS":
        # RFC 8689 section 5.
        return SMTPReplyError(550, "5.7.30", "The next host does not support REQUIRETLS")
    return SMTPReplyError(555, "5.5.4", f"{verb} parameter {keyword[:32]} can't be passed on to the next host")


def _needs_utf8(address: str, extensions: Parameters) -> SMTPReplyError | None:
    if needs_smtputf8(address) and "SMTPUTF8" not in extensions:
        return SMTPReplyError(553, "5.6.7", "The next host takes no address with other than ASCII characters")
    return None


def _size_limit(extensions: Mapping[str, str]) -> int:
    """Octets the next host accepts, 0 for any number (RFC 1870 section 3)."""
    words = extensions.get("SIZE", "")
    return int(words) if re.fullmatch(r"[0-9]{1,20}", words) else 0


def mail_command(
    address: str,
    parameters: Parameters,
    extensions: Parameters,
    size: int | None = None,
    eight_bit: bool = False,
) -> str:
    """The MAIL command for the next host.

    SIZE, BODY, SMTPUTF8, RET and ENVID go on where it has the extension.  BODY and SMTPUTF8 are left out where it has
    not, and :func:`check_message` refuses what then can't be sent.  Others go on or are refused.  AUTH is left out: the
    next host trusts us, not our client (RFC 4954 section 5).

    :param address: the reverse-path.
    :param parameters: the client's parameters.
    :param extensions: what the next host offers.
    :param size: octets of the message, if it is there already.
    :param eight_bit: whether it has octets beyond ASCII: then it is ``BODY=8BITMIME``, whatever the client has said of
        it (RFC 6152 section 3).
    :raises SMTPReplyError: if it can't be given this.
    """
    error = _needs_utf8(address, extensions)
    if error is not None:
        raise error
    kept: dict[str, str | None] = {}
    for keyword, value in parameters.items():
        if keyword in ("RET", "ENVID"):
            if "DSN" in extensions:
                kept[keyword] = value
        elif keyword == "BODY":
            if value is not None and value.upper() == "BINARYMIME":
                if not extensions.keys() >= _FOR_BINARY:
                    # RFC 3030 section 3: to convert it, or to give it back.
                    raise SMTPReplyError(554, "5.6.3", "The next host takes no binary message")
                kept[keyword] = value
            elif "8BITMIME" in extensions:
                kept[keyword] = value
        elif keyword == "SMTPUTF8":
            if "SMTPUTF8" in extensions:
                kept[keyword] = value
        elif keyword not in ("SIZE", "AUTH"):
            if _RELIED_ON.get(keyword) not in extensions:
                raise _unknown("MAIL", keyword)
            kept[keyword] = value
    if eight_bit and "8BITMIME" in extensions and (kept.get("BODY") or "").upper() != "BINARYMIME":
        kept["BODY"] = "8BITMIME"
    octets = parameters.get("SIZE") if size is None else str(size)
    if octets is not None and "SIZE" in extensions:
        kept["SIZE"] = octets
    return f"MAIL FROM:<{address}>{_words(kept)}"


def rcpt_command(address: str, parameters: Parameters, extensions: Parameters, relays_notices: bool = False) -> str:
    """The RCPT command for the next host.

    If the next host has no DSN, ORCPT and NOTIFY are left out (RFC 3461 section 5.2.2).  A demand for a notice of
    success is refused, since only the next host could give that.

    :param address: the forward-path.
    :param parameters: the client's parameters.
    :param extensions: what the next host offers.
    :param relays_notices: whether the sender is told instead that the message was relayed (section 5.2.2).
    :raises SMTPReplyError: if it can't be given this.
    """
    error = _needs_utf8(address, extensions)
    if error is not None:
        raise error
    kept: dict[str, str | None] = {}
    for keyword, value in parameters.items():
        if keyword not in ("NOTIFY", "ORCPT"):
            if _RELIED_ON_BY_RCPT.get(keyword) not in extensions:
                raise _unknown("RCPT", keyword)
            kept[keyword] = value
        elif "DSN" in extensions:
            kept[keyword] = value
        elif keyword == "NOTIFY" and not relays_notices and "SUCCESS" in (value or "").upper().split(","):
            raise SMTPReplyError(555, "5.5.4", "The next host can't notify of success")
    return f"RCPT TO:<{address}>{_words(kept)}"


def check_message(message: Outgoing, utf8: bool, extensions: Mapping[str, str], binary: bool = False) -> Reply | None:
    """What the next host can't be sent.

    :param message: the message.
    :param utf8: whether the client sent it with SMTPUTF8.
    :param extensions: what the next host offers.
    :param binary: whether it has been told that the message is binary.
    :returns: the refusal, or ``None`` if it can have the message.
    """
    limit = _size_limit(extensions)
    if 0 < limit < message.size:
        return Reply(552, "5.3.4", (f"Message is larger than the {limit} octets the next host accepts",))
    if utf8 and "SMTPUTF8" not in extensions and not message.plain_header:
        return Reply(554, "5.6.9", ("The next host takes no header with other than ASCII characters",))
    if not binary and "8BITMIME" not in extensions and not message.plain:
        # RFC 6152 section 3: to convert it, or to give it back.
        return Reply(554, "5.6.3", ("The next host takes no 8-bit message",))
    return None


def lines_to_offer(lines: list[str], extensions: Mapping[str, str]) -> list[str]:
    """Our EHLO response without what the next host can't do, so that a client can convert its message.

    :param lines: the lines as they would be.
    :param extensions: what the next host offers.
    """
    limit = _size_limit(extensions)
    kept = []
    for line in lines:
        keyword, _, words = line[4:].partition(" ")
        if keyword in _SHARED and keyword not in extensions:
            continue
        if keyword == "BINARYMIME" and "CHUNKING" not in extensions:
            continue
        if keyword == "SIZE" and words.isdigit() and limit:
            line = f"{line[:4]}SIZE {min(int(words), limit) or limit}"
        kept.append(line)
    return kept
