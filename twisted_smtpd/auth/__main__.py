"""``python -m twisted_smtpd.auth FILE USER`` and ``twisted-smtpd-passwd``: writes a password file."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence

from twisted_smtpd.auth.passwords import PasswordFile, PasswordFileError, set_password

__all__ = ["main"]


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="twisted-smtpd-passwd",
        description="Sets a user's password in a password file for `twisted-smtpd --auth-file`. The password is asked "
        "for; where the standard input is no terminal, it is its first line.",
    )
    parser.add_argument("file", help="the password file; it is made if it is not there")
    parser.add_argument("user", help="the user's name, as the mail program will give it")
    parser.add_argument(
        "--hash", choices=("argon2", "bcrypt", "scrypt"), help="default: argon2 if installed, or scrypt"
    )
    parser.add_argument("--scram", action="store_true", help="add keys for SCRAM-SHA-256 and SCRAM-SHA-1")
    parser.add_argument("--delete", action="store_true", help="remove the user instead")
    return parser.parse_args(words)


def _ask() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if password != getpass.getpass("The same again: "):
        raise PasswordFileError("these were two different passwords")
    return password


def main(words: Sequence[str] | None = None) -> None:
    """Set or remove a password; exit with 1 and one line on stderr if that can't be done.

    The password is no argument: everybody on the machine could read it in the list of processes.
    """
    options = _arguments(words)
    try:
        password = None if options.delete else _ask()
        set_password(options.file, options.user, password, kind=options.hash, scram=options.scram)
        PasswordFile(options.file)
    except PasswordFileError as error:
        sys.exit(f"twisted-smtpd-passwd: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
