"""How the server signs in at the next host: a password, or a token of OAuth 2."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, Protocol

__all__ = ["Credentials", "CredentialsError", "Exchange", "SignIn", "Token", "command_output", "first_line"]

# Octets; the tokens of large providers have some 3,000.
MAX_TOKEN = 12_000
# Seconds.
COMMAND_TIMEOUT = 30.0


class CredentialsError(Exception):
    """There is nothing to sign in with; the text is for the log and holds no secret."""


class Exchange:
    """What is said in one exchange of AUTH (RFC 4954), which no repr shows.

    :ivar command: the AUTH command.
    :ivar responses: the responses to the challenges that follow.
    :ivar farewell: the response to a challenge that tells of an error, where the mechanism has such.
    """

    __slots__ = ("command", "farewell", "responses")

    def __init__(self, command: str, responses: Sequence[str] = (), farewell: str | None = None) -> None:
        self.command, self.responses, self.farewell = command, responses, farewell


class SignIn(Protocol):
    """Knows how to sign in.

    :ivar mechanisms: what it can use, for errors.
    """

    mechanisms: str

    async def exchange(self, offered: Sequence[str], host: str, port: int) -> Exchange | None:
        """What to say, or ``None`` if no mechanism of those that are offered can be used.

        :param offered: the mechanisms that the next host offers, in capitals.
        :param host: its name.
        :param port: its port.
        :raises CredentialsError: if there is nothing to sign in with.
        """


class Credentials:
    """A user name and a password, which no repr shows.

    :param username: the authentication identity.
    :param password: its password.
    """

    __slots__ = ("_password", "_username")
    mechanisms = "neither AUTH PLAIN nor AUTH LOGIN"

    def __init__(self, username: str, password: str) -> None:
        self._username = username.encode()
        self._password = password.encode()

    def __repr__(self) -> str:
        return "<Credentials>"

    async def exchange(self, offered: Sequence[str], host: str, port: int) -> Exchange | None:
        """PLAIN (RFC 4616), or LOGIN."""
        if "PLAIN" in offered:
            return Exchange(f"AUTH PLAIN {self.plain}")
        if "LOGIN" in offered:
            return Exchange("AUTH LOGIN", (_encoded(self._username), _encoded(self._password)))
        return None

    @property
    def plain(self) -> str:
        """The initial response of PLAIN."""
        return _encoded(b"\0%b\0%b" % (self._username, self._password))


class Token:
    """A user name and a token of OAuth 2, which no repr shows.

    :param username: the account.
    :param token: gives the token each time the server signs in; it may return a Deferred or be a coroutine function.
    """

    __slots__ = ("_token", "_username")
    mechanisms = "neither AUTH OAUTHBEARER nor AUTH XOAUTH2"

    def __init__(self, username: str, token: Callable[[], Any]) -> None:
        self._username, self._token = username, token

    def __repr__(self) -> str:
        return "<Token>"

    async def exchange(self, offered: Sequence[str], host: str, port: int) -> Exchange | None:
        """OAUTHBEARER (RFC 7628), or XOAUTH2."""
        if not {"OAUTHBEARER", "XOAUTH2"} & set(offered):
            return None
        given = self._token()
        token: str = given if isinstance(given, str) else await given
        if not token or len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable():
            raise CredentialsError("the token is empty, too long, or has characters that a token can't have")
        if "OAUTHBEARER" in offered:
            # RFC 5801 section 4: these two have a meaning in the header.
            name = self._username.replace("=", "=3D").replace(",", "=2C")
            said = f"n,a={name},\1host={host}\1port={port}\1auth=Bearer {token}\1\1"
            return Exchange(f"AUTH OAUTHBEARER {_encoded(said.encode())}", farewell="AQ==")
        said = f"user={self._username}\1auth=Bearer {token}\1\1"
        return Exchange(f"AUTH XOAUTH2 {_encoded(said.encode())}", farewell="")


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def first_line(path: str) -> str:
    """The first line of a file, without its end.

    :param path: the file.
    :raises CredentialsError: it can't be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(f"{path}: {error}") from None


def command_output(words: Sequence[str]) -> str:
    """The first line that a command prints; it runs until the command ends, so call it in a thread.

    :param words: the command and its arguments; no shell reads them.
    :raises CredentialsError: it can't be run, fails, or takes longer than :data:`COMMAND_TIMEOUT` seconds.
    """
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise CredentialsError(f"{words[0]} takes longer than {COMMAND_TIMEOUT:g} s") from None
    except OSError as error:
        raise CredentialsError(f"{words[0]}: {error.strerror or error}") from None
    if done.returncode:
        # What it has printed may be the token.
        raise CredentialsError(f"{words[0]} has ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
