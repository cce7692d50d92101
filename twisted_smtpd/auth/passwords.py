"""Files of users and password hashes: reads and writes them, and checks passwords in threads."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from twisted.logger import Logger

from twisted_smtpd.auth.hashes import HashError, check_hash, cost_of, default_kind, make_hash, scram_keys, verify
from twisted_smtpd.auth.prepare import prepare
from twisted_smtpd.auth.results import AuthResult, Identity, LoginPassword
from twisted_smtpd.auth.scram import ITERATIONS, SALT_OCTETS, SCRAM_HASHES, ScramKeys
from twisted_smtpd.auth.worker import Busy, Worker
from twisted_smtpd.runtime.files import mark_of, open_at_once
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["PasswordFile", "PasswordFileError", "set_password"]

log = Logger()

T = TypeVar("T")

MAX_OCTETS = 2**26
# More than a change from one kind of hash to another makes.
MAX_COSTS = 2

# A comment, so that other programs that read the file leave it alone.
_SECRET = re.compile(r"^# secret: ([0-9a-f]{64})\b", re.MULTILINE | re.ASCII)


class PasswordFileError(Exception):
    """A password file can't be used; the text says why, without any hash."""


@dataclass(frozen=True)
class _Users:
    """The contents of a password file.

    :ivar hashes: for each user, kind of hash to hash.
    :ivar mark: another one means that the file has changed.
    :ivar decoys: for each kind and cost of the hashes, one of them.  All passwords take the time of all of these.
    :ivar scram: for each SCRAM mechanism, iterations and length of the salt that most users' keys have.
    :ivar secret: decides on the salts of unknown users.
    """

    hashes: Mapping[str, Mapping[str, str]] = field(repr=False)
    mark: tuple[int, ...]
    decoys: Mapping[str, str] = field(repr=False)
    scram: Mapping[str, tuple[int, int]]
    secret: bytes = field(repr=False)


class PasswordFile:
    """An authenticator for a file with a line ``user:hash`` for each user.

    A user may have several hashes, separated by blanks: one for PLAIN and LOGIN (argon2, bcrypt or scrypt; files
    written by ``htpasswd -B`` work), and keys for SCRAM-SHA-256 and SCRAM-SHA-1.  Empty lines and lines that begin with
    ``#`` are ignored.  The file is read again when it has changed; if that fails, the users read before stay valid.

    Each check of a password computes a hash in a thread, even for an unknown user; where users have hashes of several
    kinds or costs, it computes one of each.  Neither the answer nor its time tells whether the user exists.  SCRAM
    gives an unknown user a salt as well, which stays the same as long as the file's secret does.

    :param path: the file.
    :param worker: runs the hashes.
    :raises PasswordFileError: if the file can't be read, or has a line that can't be used.
    """

    def __init__(self, path: str | os.PathLike[str], *, worker: Worker | None = None) -> None:
        self.path = Path(path)
        self._worker = Worker() if worker is None else worker
        self._users = _read(self.path)
        self._reported: object = None

    @property
    def mechanisms(self) -> frozenset[str]:
        """The mechanisms that can be offered: SCRAM only if there are keys for it."""
        found = {kind for hashes in self._users.hashes.values() for kind in hashes if kind in SCRAM_HASHES}
        return frozenset({"PLAIN", "LOGIN", *found, *(f"{kind}-PLUS" for kind in found)})

    def reload(self) -> bool:
        """Read the file now, whether it has changed or not (for SIGHUP).

        :returns: whether it can be used; if not, the log says why and the users read before stay valid.
        """
        try:
            self._users = _read(self.path)
        except PasswordFileError as error:
            log.error("{path} can't be read, what was read before holds: {error}", path=self.path, error=error)
            return False
        log.info("read {path} again: {number} users", path=self.path, number=len(self._users.hashes))
        return True

    async def __call__(
        self, server: object, session: object, envelope: object, mechanism: str, auth_data: LoginPassword
    ) -> AuthResult:
        """Check a password."""
        login = auth_data.login
        right = await self._run(server, self._check, login, auth_data.password)
        with suppress(ValueError):
            # The user's name, not the spelling that the client has chosen: names are compared after this.
            login = prepare(login).encode()
        return AuthResult(success=right, handled=right, auth_data=Identity(login))

    async def scram_keys(
        self, server: object, session: object, envelope: object, mechanism: str, login: bytes
    ) -> ScramKeys:
        """The keys of a user; for an unknown user, keys that fit no password."""
        return await self._run(server, self._keys, mechanism, login)

    async def _run(self, server: object, function: Callable[..., T], *arguments: object) -> T:
        try:
            return await self._worker.run(function, *arguments, owner=getattr(server, "_address", None))
        except Busy:
            raise SMTPReplyError(454, "4.7.0", "Too busy to authenticate, try again later") from None

    # The methods below run in a thread.

    def _current(self) -> _Users:
        """The users, read again if the file has changed and can be read."""
        try:
            if mark_of(os.stat(self.path)) != self._users.mark:
                self._users = _read(self.path)
                log.info("read {path} again, it has changed", path=self.path)
            self._reported = None
        except (OSError, PasswordFileError) as error:
            if str(error) != self._reported:
                self._reported = str(error)
                log.error("{path} can't be read, what was read before holds: {error}", path=self.path, error=error)
        return self._users

    def _check(self, login: bytes, password: bytes) -> bool:
        users = self._current()
        try:
            hashed = _for_password(users.hashes[prepare(login)])
        except (KeyError, ValueError):
            hashed = None
        try:
            password = prepare(password).encode()
        except ValueError:
            # No user can have this password, but the answer must take as long as any other.
            hashed, password = None, b"password"
        cost = None if hashed is None else cost_of(hashed)
        right = False
        for each, decoy in users.decoys.items():
            if each == cost and hashed is not None:
                right = _verify_quietly(hashed, password)
            else:
                _verify_quietly(decoy, password)
        return right

    def _keys(self, mechanism: str, login: bytes) -> ScramKeys:
        users = self._current()
        hashed = users.hashes.get(login.decode(), {}).get(mechanism)
        if hashed is None:
            iterations, salt_octets = users.scram.get(mechanism, (ITERATIONS, SALT_OCTETS))
            return ScramKeys.decoy(mechanism, login, iterations, secret=users.secret, salt_octets=salt_octets)
        return scram_keys(hashed)[1]


def _verify_quietly(hashed: str, password: bytes) -> bool:
    try:
        return verify(hashed, password)
    except ValueError:
        # For example SCRAM refuses characters that no password may have, and bcrypt a NUL.
        return False


def _for_password(hashes: Mapping[str, str]) -> str:
    """The one of a user's hashes with which a password is checked."""
    return next((h for kind, h in hashes.items() if kind not in SCRAM_HASHES), None) or next(iter(hashes.values()))


def _read(path: Path) -> _Users:
    try:
        with open(path, "rb", opener=open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_OCTETS:
                raise PasswordFileError(f"{path} is no file of at most {MAX_OCTETS:,} octets")
            text = file.read().decode()
    except OSError as error:
        raise PasswordFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PasswordFileError(f"{path} is not UTF-8") from None
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        log.warn("{path} can be read or written by everybody on this machine: chmod 600", path=path)
    users: dict[str, dict[str, str]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            try:
                name, hashes = _parse(line)
                if name in users:
                    raise HashError("this user has a line already")
            except ValueError as error:
                raise PasswordFileError(f"{path}, line {number}: {error}") from None
            users[name] = hashes
    decoys = _decoys(users)
    if len(decoys) > MAX_COSTS:
        log.warn(
            "{path} has {number} kinds and costs of hashes, and each check of a password computes one of each: "
            "set the passwords anew",
            path=path,
            number=len(decoys),
        )
    return _Users(users, mark_of(status), decoys, _usual_scram(users), _secret(text))


def _parse(line: str) -> tuple[str, dict[str, str]]:
    name, colon, rest = line.partition(":")
    if not colon or not rest.split():
        raise HashError("a line is user:hash")
    hashes: dict[str, str] = {}
    for hashed in rest.split():
        kind = check_hash(hashed)
        if kind in hashes:
            raise HashError(f"two hashes of the kind {kind}")
        hashes[kind] = hashed
    return prepare(name), hashes


def _decoys(users: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """A hash of each kind and cost.  Others' passwords are checked with it, but are never accepted."""
    decoys: dict[str, str] = {}
    for hashes in users.values():
        hashed = _for_password(hashes)
        decoys.setdefault(cost_of(hashed), hashed)
    # In an order that does not change with that of the users.
    return dict(sorted(decoys.items()))


def _usual_scram(users: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[int, int]]:
    usual = {}
    for mechanism in SCRAM_HASHES:
        found = [scram_keys(hashes[mechanism])[1] for hashes in users.values() if mechanism in hashes]
        if found:
            usual[mechanism] = Counter((keys.iterations, len(keys.salt)) for keys in found).most_common(1)[0][0]
    return usual


def _secret(text: str) -> bytes:
    """What decides on the salts of unknown users: the file's own line, or else all of the file.

    It has to be the same in each process that reads the file, and clients must not be able to find it out.
    """
    match = _SECRET.search(text)
    return bytes.fromhex(match[1]) if match is not None else hashlib.sha256(text.encode()).digest()


def set_password(
    path: str | os.PathLike[str], login: str, password: str | None, *, kind: str | None = None, scram: bool = False
) -> None:
    """Add a user to a password file, change a password, or remove a user.

    The file is replaced as a whole: a server that reads it at the same time sees the old one or the new one.  If the
    file is new, only its owner can read it.

    :param path: the file; it is made if it does not exist.
    :param login: the user's name, not empty and without a colon.
    :param password: the password, or ``None`` to remove the user.
    :param kind: ``argon2``, ``bcrypt`` or ``scrypt``; by default argon2 if its library is installed, else scrypt.
    :param scram: whether to add keys for SCRAM-SHA-256 and SCRAM-SHA-1.  With them, passwords are easier to guess for a
        thief of the file.
    :raises PasswordFileError: if the file can't be read or written, if the user to be removed does not exist, or if the
        name or the password has characters that are not allowed (RFC 4013).
    """
    path = Path(path)
    try:
        name = prepare(login)
        if ":" in name or name.startswith("#") or name != name.strip() or not name.isprintable():
            raise ValueError("a colon, a blank at either end, or a # in front")
    except ValueError as error:
        raise PasswordFileError(f"that can't be a user's name: {error}") from None
    entry = None
    if password is not None:
        kinds = [default_kind() if kind is None else kind, *(SCRAM_HASHES if scram else ())]
        try:
            prepared = prepare(password)
            entry = f"{name}:{' '.join(make_hash(one, prepared) for one in kinds)}"
        except ValueError as error:
            raise PasswordFileError(f"that can't be a password: {error}") from None
    try:
        _replace(path, name, entry)
    except FileExistsError:
        raise PasswordFileError(f"somebody else is writing it: {path}.new exists") from None
    except OSError as error:
        raise PasswordFileError(f"{error.filename or path}: {error.strerror}") from None


def _replace(path: Path, name: str, entry: str | None) -> None:
    # The new file is private from the start, and as long as it exists no second writer can make it.
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise PasswordFileError(f"{path} is no file")
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in _with_secret(_changed(path, name, entry)))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            status = path.stat()
            os.chmod(new, stat.S_IMODE(status.st_mode))
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(new, status.st_uid, status.st_gid)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


def _with_secret(lines: list[str]) -> list[str]:
    """The lines with one that decides on the salts of unknown users, if SCRAM needs it and it is not there."""
    text = "\n".join(lines)
    if _SECRET.search(text) is not None or not any(f"{mechanism}$" in text for mechanism in SCRAM_HASHES):
        return lines
    return [*lines, f"# secret: {os.urandom(32).hex()} keep this: it hides which users there are"]


def _changed(path: Path, name: str, entry: str | None) -> list[str]:
    """The lines of the file with this user's line replaced, removed, or added at the end."""
    lines = path.read_text("utf-8").rstrip("\n").split("\n") if path.exists() else []
    kept: list[str] = []
    found = False
    for line in filter(None, lines):
        if not line.startswith("#") and line.partition(":")[0] == name:
            if entry is not None and not found:
                kept.append(entry)
            found = True
        else:
            kept.append(line)
    if entry is None and not found:
        raise PasswordFileError("there is no such user")
    return kept if found or entry is None else [*kept, entry]
