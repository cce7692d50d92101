"""``twisted-smtpd healthcheck WHERE``: asks a server whether it serves, for containers and service managers."""

from __future__ import annotations

import argparse
import smtplib
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

__all__ = ["main"]

NAME = "twisted-smtpd healthcheck"


def main(words: Sequence[str]) -> None:
    """Exit with 0 if the server serves, or with 1 and one line on stderr if not.

    :param words: the command line.
    """
    parser = argparse.ArgumentParser(prog=NAME, description="Exits with 0 if a server serves, with 1 if not.")
    parser.add_argument("where", help="HOST:PORT of an SMTP server, or a URL such as http://127.0.0.1:9125/readyz")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="for each step [default: 5]")
    options = parser.parse_args(words)
    try:
        if options.where.startswith(("http://", "https://")):
            _ask_http(options.where, options.timeout)
        else:
            _ask_smtp(options.where, options.timeout)
    except (OSError, ValueError, smtplib.SMTPException) as error:
        sys.exit(f"{NAME}: {options.where}: {' '.join(str(error).split()) or type(error).__name__}")


def _ask_http(url: str, timeout: float) -> None:
    # What is asked is this machine's or a near one's: no proxy of the environment stands before it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=timeout).close()
    except urllib.error.HTTPError as error:
        with error:
            reason = error.read(200).decode("utf-8", "replace")
        raise ValueError(f"{error.code} {reason}") from None


def _ask_smtp(where: str, timeout: float) -> None:
    host, colon, port = where.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError("it is neither HOST:PORT nor a URL")
    # With a host, SMTP() raises an error for each greeting but 220.
    with smtplib.SMTP(host.strip("[]"), int(port), local_hostname="localhost", timeout=timeout):
        pass
