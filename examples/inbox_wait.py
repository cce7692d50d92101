"""Waits for a message in an inbox, and prints its one-time codes and its links: for scripts that sign up somewhere.

``python examples/inbox_wait.py http://127.0.0.1:8026 to:bart@example.com 30`` waits for 30 seconds at most.  A token,
where the inbox wants one, is taken from the environment: ``INBOX_TOKEN``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

# Seconds in which the inbox has to answer, beside those that it is told to wait.
SLACK = 10


def ask(url: str, path: str, **query: str) -> Any:
    """Ask the inbox.

    :raises HTTPError: if it answers with an error; its body is JSON with one line.
    """
    request = Request(f"{url.rstrip('/')}/api/v1/{path}?{urlencode(query)}")
    if token := os.environ.get("INBOX_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    with urlopen(request, timeout=float(query.get("timeout", 0)) + SLACK) as answer:
        return json.load(answer)


def main(url: str, search: str, seconds: str = "30") -> int:
    """Wait, and print what the message holds.

    :returns: the exit status: 1 if no message came.
    """
    try:
        message = ask(url, "wait", query=search, timeout=seconds)
        number = message["ID"]
        found = ask(url, f"message/{number}/codes")["Codes"] + ask(url, f"message/{number}/links")["Links"]
    except HTTPError as error:
        print(json.load(error)["Error"], file=sys.stderr)
        return 1
    print(message["Subject"], *found, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
