"""Password hashes: argon2 and bcrypt with their libraries, scrypt and SCRAM with the standard library."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from twisted_smtpd.auth.scram import MAX_ITERATIONS, SCRAM_HASHES, ScramKeys

__all__ = [
    "KINDS",
    "HashError",
    "check_hash",
    "cost_of",
    "default_kind",
    "kind_of",
    "make_hash",
    "scram_keys",
    "verify",
]

# scrypt's cost (the exponent of a power of two), block size and lanes: 32 MiB, three times.
SCRYPT = (15, 8, 3)
SCRYPT_OCTETS = 32
MIN_OCTETS = 16
# Octets.  A mistake in a file's hash must not make scrypt use all memory.
MAX_SCRYPT_MEMORY = 2**30
# bcrypt ignores all octets of a password after these.
MAX_BCRYPT = 72

_SCRYPT = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,3}),p=([0-9]{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")
# RFC 5803 section 3.
_SCRAM = re.compile(r"(SCRAM-SHA-(?:1|256))\$([0-9]{1,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
_BCRYPT = re.compile(r"\$2[aby]\$[0-3][0-9]\$[./A-Za-z0-9]{53}")


class HashError(ValueError):
    """A hash can't be used; the text says why, without the hash."""


@dataclass(frozen=True)
class _Kind:
    starts: tuple[str, ...]
    make: Callable[[str], str]
    verify: Callable[[str, bytes], bool]
    check: Callable[[str], object]


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise HashError(f"{name} needs `pip install twisted-smtpd[auth]`") from None


def _argon2_make(password: str) -> str:
    return _library("argon2").PasswordHasher().hash(password)  # type: ignore[no-any-return]


def _argon2_verify(hashed: str, password: bytes) -> bool:
    argon2 = _library("argon2")
    try:
        return argon2.PasswordHasher().verify(hashed, password) is True
    except argon2.exceptions.VerifyMismatchError:
        return False


def _argon2_check(hashed: str) -> None:
    argon2 = _library("argon2")
    try:
        argon2.extract_parameters(hashed)
    except argon2.exceptions.InvalidHashError:
        raise HashError("a malformed argon2 hash") from None


def _bcrypt_make(password: str) -> str:
    bcrypt = _library("bcrypt")
    if len(password.encode()) > MAX_BCRYPT or "\0" in password:
        raise HashError(f"bcrypt takes passwords of at most {MAX_BCRYPT} octets")
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode()  # type: ignore[no-any-return]


def _bcrypt_verify(hashed: str, password: bytes) -> bool:
    # A longer password is never right, since bcrypt would ignore its end.  The hash is still computed, so that the time
    # does not tell.
    fits = len(password) <= MAX_BCRYPT
    return _library("bcrypt").checkpw(password[:MAX_BCRYPT], hashed.encode()) is True and fits


def _bcrypt_check(hashed: str) -> None:
    _library("bcrypt")
    if _BCRYPT.fullmatch(hashed) is None:
        raise HashError("a malformed bcrypt hash")


def _scrypt_make(password: str) -> str:
    salt = os.urandom(16)
    key = _scrypt(password.encode(), salt, SCRYPT, SCRYPT_OCTETS)
    cost, block, lanes = SCRYPT
    return f"$scrypt$ln={cost},r={block},p={lanes}${_encode(salt)}${_encode(key)}"


def _scrypt(password: bytes, salt: bytes, parameters: tuple[int, int, int], octets: int) -> bytes:
    cost, block, lanes = parameters
    memory = 128 * block * (2**cost + lanes + 2)
    return hashlib.scrypt(password, salt=salt, n=2**cost, r=block, p=lanes, maxmem=memory, dklen=octets)


def _scrypt_verify(hashed: str, password: bytes) -> bool:
    parameters, salt, key = _scrypt_check(hashed)
    return hmac.compare_digest(_scrypt(password, salt, parameters, len(key)), key)


def _scrypt_check(hashed: str) -> tuple[tuple[int, int, int], bytes, bytes]:
    match = _SCRYPT.fullmatch(hashed)
    if match is None:
        raise HashError("a malformed scrypt hash")
    cost, block, lanes = int(match[1]), int(match[2]), int(match[3])
    if not (1 <= cost <= 30 and block and lanes) or 128 * block * (2**cost + lanes) > MAX_SCRYPT_MEMORY:
        raise HashError("a scrypt hash whose parameters are out of bounds")
    salt, key = _decode(match[4]), _decode(match[5])
    if len(key) < MIN_OCTETS:
        raise HashError("a scrypt hash that is too short")
    return (cost, block, lanes), salt, key


def _scram_maker(mechanism: str) -> Callable[[str], str]:
    def make(password: str) -> str:
        keys = ScramKeys.derive(mechanism, password)
        salt, stored, server = (
            base64.b64encode(octets).decode() for octets in (keys.salt, keys.stored_key, keys.server_key)
        )
        return f"{mechanism}${keys.iterations}:{salt}${stored}:{server}"

    return make


def _scram_verify(hashed: str, password: bytes) -> bool:
    mechanism, keys = scram_keys(hashed)
    offered = ScramKeys.derive(mechanism, password, salt=keys.salt, iterations=keys.iterations)
    return hmac.compare_digest(offered.stored_key, keys.stored_key)


def scram_keys(hashed: str) -> tuple[str, ScramKeys]:
    """The mechanism and the keys in an entry for SCRAM (RFC 5803).

    :raises HashError: if the entry is malformed.
    """
    match = _SCRAM.fullmatch(hashed)
    if match is None:
        raise HashError("malformed SCRAM keys")
    octets = hashlib.new(SCRAM_HASHES[match[1]]).digest_size
    stored, server = _decode(match[4]), _decode(match[5])
    if len(stored) != octets or len(server) != octets or not 4096 <= int(match[2]) <= MAX_ITERATIONS:
        raise HashError("SCRAM keys that are out of bounds")
    return match[1], ScramKeys(_decode(match[3]), int(match[2]), stored, server)


def _encode(octets: bytes) -> str:
    return base64.b64encode(octets).decode().rstrip("=")


def _decode(text: str) -> bytes:
    text = text.rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise HashError("malformed base64") from None


KINDS = {
    "argon2": _Kind(("$argon2id$", "$argon2i$", "$argon2d$"), _argon2_make, _argon2_verify, _argon2_check),
    "bcrypt": _Kind(("$2a$", "$2b$", "$2y$"), _bcrypt_make, _bcrypt_verify, _bcrypt_check),
    "scrypt": _Kind(("$scrypt$",), _scrypt_make, _scrypt_verify, _scrypt_check),
    **{name: _Kind((f"{name}$",), _scram_maker(name), _scram_verify, scram_keys) for name in SCRAM_HASHES},
}


def default_kind() -> str:
    """argon2 if its library is installed, else scrypt."""
    try:
        _library("argon2")
    except HashError:
        return "scrypt"
    return "argon2"


def kind_of(hashed: str) -> str:
    """The kind of a hash: a key of :data:`KINDS`.

    :raises HashError: if the kind is unknown.
    """
    for name, kind in KINDS.items():
        if hashed.startswith(kind.starts):
            return name
    raise HashError("a hash of an unknown kind: argon2, bcrypt, scrypt and SCRAM are known")


def cost_of(hashed: str) -> str:
    """What decides how long a password takes to be checked with a hash: the kind, and its parameters.

    :raises HashError: if the kind is unknown.
    """
    kind = kind_of(hashed)
    if kind in SCRAM_HASHES:
        return hashed.partition(":")[0]
    parts = hashed.split("$")
    # Last come the salt and the hash, which bcrypt writes as one.  Its 2a, 2b and 2y take the same time.
    return f"bcrypt${parts[2]}" if kind == "bcrypt" else "$".join(parts[1:-2])


def check_hash(hashed: str) -> str:
    """Check that a hash is well-formed and that its library is installed.

    :returns: its kind.
    :raises HashError: if the hash can't be used.
    """
    kind = kind_of(hashed)
    KINDS[kind].check(hashed)
    return kind


def make_hash(kind: str, password: str) -> str:
    """Hash a password; this is slow on purpose.

    :param kind: a key of :data:`KINDS`.
    :param password: the password, prepared by :func:`twisted_smtpd.auth.prepare.prepare`.
    :raises HashError: if this kind can't hash the password, or its library is missing.
    """
    return KINDS[kind].make(password)


def verify(hashed: str, password: bytes) -> bool:
    """Whether a hash is that of a password; this is slow on purpose.

    :raises HashError: if the hash can't be used.
    """
    return KINDS[kind_of(hashed)].verify(hashed, password)
