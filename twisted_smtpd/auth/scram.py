"""The server's side of SCRAM (RFC 5802, RFC 7677): bytes in, bytes out.

Existing libraries do not support ``tls-exporter``, the channel binding of TLS 1.3 (RFC 9266), so they would refuse
every client that uses it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from twisted_smtpd.auth.prepare import prepare

__all__ = ["BINDINGS", "SCRAM_HASHES", "ScramError", "ScramKeys", "ScramServer"]

#: Mechanism, without ``-PLUS``, to the name of its hash function.
SCRAM_HASHES = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}
#: The channel bindings a client may choose from (RFC 9266, RFC 5929).
BINDINGS = ("tls-exporter", "tls-unique", "tls-server-end-point")

#: RFC 7677 section 4 asks for 4096 at least.  Twice as many mean twice the work for a thief, and for clients.
ITERATIONS = 20_000
MAX_ITERATIONS = 10_000_000
SALT_OCTETS = 16

# Not compiled here: the re module compiles them when the first client uses SCRAM, and keeps the result.
_NAME = "(?:[^=,\0]|=2C|=3D)+"
_FIRST = (
    rf"(?P<header>(?P<flag>n|y|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>{_NAME}))?,)"
    rf"(?P<bare>n=(?P<name>{_NAME}),r=(?P<nonce>[!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*)"
)
_FINAL = (
    r"(?P<bare>c=(?P<bound>[A-Za-z0-9+/=]+),r=(?P<nonce>[!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*),p=(?P<proof>[A-Za-z0-9+/=]+)"
)
# With it an unknown user gets the same salt in each attempt, as a real user does, until the process ends.
_decoy_secret = os.urandom(32)


class ScramError(Exception):
    """The client's message is malformed, or asks for something impossible.

    :ivar malformed: whether it is malformed.
    """

    def __init__(self, text: str, malformed: bool = False) -> None:
        super().__init__(text)
        self.malformed = malformed


@dataclass(frozen=True)
class ScramKeys:
    """The keys that the server stores instead of a password (RFC 5802 section 3).

    :ivar salt: random octets.
    :ivar iterations: how many iterations PBKDF2 made.
    :ivar stored_key: with it the server checks that the client knows the password.
    :ivar server_key: with it the server proves to the client that it has the user's keys.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def derive(
        cls, mechanism: str, password: str | bytes, *, salt: bytes | None = None, iterations: int = ITERATIONS
    ) -> ScramKeys:
        """The keys for a password.

        :param mechanism: a key of :data:`SCRAM_HASHES`.
        :param password: the password.
        :param salt: by default random octets.
        :param iterations: 4096 to 10,000,000.
        :raises ValueError: if the password has characters that are not allowed (RFC 4013).
        """
        algorithm = SCRAM_HASHES[mechanism]
        salt = os.urandom(SALT_OCTETS) if salt is None else salt
        salted = hashlib.pbkdf2_hmac(algorithm, prepare(password).encode(), salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", algorithm)
        stored_key = hashlib.new(algorithm, client_key).digest()
        return cls(salt, iterations, stored_key, hmac.digest(salted, b"Server Key", algorithm))

    @classmethod
    def decoy(
        cls,
        mechanism: str,
        login: bytes,
        iterations: int = ITERATIONS,
        *,
        secret: bytes | None = None,
        salt_octets: int = SALT_OCTETS,
    ) -> ScramKeys:
        """Keys for an unknown user: they look like real ones, but no password fits them.

        :param mechanism: a key of :data:`SCRAM_HASHES`; each gives other keys.
        :param login: the user's name; each gives other keys.
        :param iterations: as many as the keys of real users have.
        :param secret: decides on the salt.  Real users keep theirs, so this must be the same in each process of a
            server, and after a restart; unless it is given, it is random for this process.
        :param salt_octets: how long the salt is, 512 at most: as long as that of real users.
        """
        octets = hashlib.new(SCRAM_HASHES[mechanism]).digest_size
        seed = hmac.digest(secret or _decoy_secret, mechanism.encode() + b"\0" + login, "sha512")
        salt = hashlib.shake_256(seed).digest(salt_octets)
        return cls(salt, iterations, os.urandom(octets), os.urandom(octets))


class ScramServer:
    """One exchange: call :meth:`first`, :meth:`challenge` and :meth:`final` in this order.

    :param mechanism: its name, with ``-PLUS`` if that was chosen.
    :param binding: returns the channel binding data of a kind, or ``None`` if it is unavailable.
    :param plus_offered: whether ``-PLUS`` was offered.  A client that says it was not has received a forged offer from
        a third party (RFC 5802 section 6).
    :param nonce: the server's part of the nonce, for tests.
    """

    def __init__(
        self, mechanism: str, binding: Callable[[str], bytes | None], plus_offered: bool, nonce: str | None = None
    ) -> None:
        self.plus = mechanism.endswith("-PLUS")
        self.algorithm = SCRAM_HASHES[mechanism.removesuffix("-PLUS")]
        self._binding = binding
        self._plus_offered = plus_offered
        self._nonce = secrets.token_urlsafe(18) if nonce is None else nonce
        self._bound = b""
        self._transcript = ""
        self._keys: ScramKeys | None = None

    def first(self, message: bytes) -> bytes:
        """Read the client's first message.

        :returns: the user's name, prepared (RFC 4013).
        :raises ScramError: if it is malformed, names another user to act as, or has the wrong channel binding.
        """
        match = re.fullmatch(_FIRST, _text(message))
        if match is None:
            raise ScramError("malformed message", malformed=True)
        self._bound = match["header"].encode() + self._binding_data(match["flag"], match["binding"])
        name, authzid = _unescape(match["name"]), _unescape(match["authzid"] or "")
        if authzid not in ("", name):
            raise ScramError("acting as another user is not possible here")
        try:
            login = prepare(name).encode()
        except ValueError:
            raise ScramError("malformed user name", malformed=True) from None
        self._nonce = match["nonce"] + self._nonce
        self._transcript = match["bare"]
        return login

    def _binding_data(self, flag: str, kind: str | None) -> bytes:
        if self.plus != (kind is not None):
            raise ScramError("channel binding goes with a mechanism -PLUS, and only with that")
        if kind is None:
            if flag == "y" and self._plus_offered:
                raise ScramError("an attacker in between hides that channel binding is offered")
            return b""
        data = self._binding(kind) if kind in BINDINGS else None
        if data is None:
            raise ScramError(f"channel binding {kind[:40]} does not exist on this connection")
        return data

    def challenge(self, keys: ScramKeys) -> bytes:
        """The server's first message, for the user's keys."""
        self._keys = keys
        message = f"r={self._nonce},s={base64.b64encode(keys.salt).decode()},i={keys.iterations}"
        self._transcript += f",{message}"
        return message.encode()

    def final(self, message: bytes) -> bytes | None:
        """Read the client's final message.

        :returns: the server's final message, or ``None`` if the client does not know the password.
        :raises ScramError: if it is malformed, or from another exchange or another connection.
        """
        assert self._keys is not None
        match = re.fullmatch(_FINAL, _text(message))
        if match is None:
            raise ScramError("malformed message", malformed=True)
        bound, proof = _decode(match["bound"]), _decode(match["proof"])
        if not hmac.compare_digest(bound, self._bound):
            raise ScramError("the channel binding does not match")
        if not hmac.compare_digest(match["nonce"].encode(), self._nonce.encode()):
            raise ScramError("the nonce does not match")
        transcript = f"{self._transcript},{match['bare']}".encode()
        signature = hmac.digest(self._keys.stored_key, transcript, self.algorithm)
        if len(proof) != len(signature):
            return None
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.new(self.algorithm, client_key).digest(), self._keys.stored_key):
            return None
        return b"v=" + base64.b64encode(hmac.digest(self._keys.server_key, transcript, self.algorithm))


def _text(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramError("malformed message", malformed=True) from None


def _decode(text: str) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error:
        octets = None
    # Python takes surplus padding and bits.
    if octets is None or base64.b64encode(octets).decode() != text:
        raise ScramError("malformed message", malformed=True)
    return octets


def _unescape(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")
