"""``python -m twisted_smtpd ARGS`` and ``twisted-smtpd ARGS``: the same as ``twist smtpd ARGS``."""

from __future__ import annotations

import runpy
import sys

__all__ = ["main"]


def main() -> None:
    """Become ``twist smtpd``, with this command's arguments."""
    sys.argv.insert(1, "smtpd")
    runpy.run_module("twisted", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
