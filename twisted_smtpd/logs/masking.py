"""What of a command line may be in a log: all but secrets."""

from __future__ import annotations

from collections.abc import Container

from twisted_smtpd.logs.escaping import MAX_TEXT, cut

__all__ = ["HIDDEN", "is_auth", "shown_command", "shown_line", "shown_reply"]

#: What stands for a secret.
HIDDEN = "***"

# The second is no command of SMTP's, but what follows it in POP3 and FTP is a password.
_OF_SECRETS = ("AUTH", "PASS")
# What LOGIN asks for, and the empty challenge before an initial response.
_KNOWN_CHALLENGES = frozenset({b"", b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6", b"VXNlciBOYW1lAA==", b"UGFzc3dvcmQA"})


def is_auth(line: bytes) -> bool:
    """Whether a line is AUTH, or is meant to be."""
    return line.lstrip()[:4].upper() == b"AUTH"


def shown_command(line: bytes, mechanisms: Container[str]) -> tuple[str, str | None]:
    """A command line as it may be shown: verb and argument.

    Of AUTH only the mechanism is shown, and only if it is one of the server's: anything else may be a password in the
    wrong place.

    :param line: the line without its line end.
    :param mechanisms: the server's mechanisms.
    :returns: the argument is ``None`` if there is none.
    """
    # The rest would be cut off anyway.
    text = line[: 4 * MAX_TEXT].decode("utf-8", "replace").strip()
    verb, _, argument = text.replace("\t", " ", 1).partition(" ")
    name = verb.upper()
    argument = argument.strip()
    if not name.startswith(_OF_SECRETS):
        return cut(name if name.isalnum() else verb), cut(argument) if argument else None
    if name not in _OF_SECRETS:
        return name[:4], HIDDEN
    if not argument:
        return name, None
    mechanism, _, response = argument.partition(" ")
    if name != "AUTH" or mechanism.upper() not in mechanisms:
        return name, HIDDEN
    return name, f"{mechanism.upper()} {HIDDEN}" if response else mechanism.upper()


def shown_line(line: bytes, mechanisms: Container[str]) -> str:
    """The same in one text, as the client has written it."""
    text = line[: 4 * MAX_TEXT].decode("utf-8", "replace")
    if not text.lstrip().upper().startswith(_OF_SECRETS):
        return cut(text)
    return " ".join(filter(None, shown_command(line, mechanisms)))


def shown_reply(line: bytes) -> bytes:
    """A line of a reply as it may be shown: a challenge is a part of an exchange that has a secret."""
    if line.startswith(b"334 ") and line[4:] not in _KNOWN_CHALLENGES:
        return b"334 " + HIDDEN.encode()
    return line
