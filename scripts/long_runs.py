"""The long forms of tests whose short forms run with all others: random sessions, PROXY headers, smuggling.

    python scripts/long_runs.py [sessions] [headers] [smuggling]

Without arguments it runs all three, which takes an hour.  It needs what the tests need (``pip install -e ".[test]"``).

sessions
    25,000 random conversations with random options and hooks, each whole, in octets, and in pieces of two sizes
    (100,000 sessions): the client hears the same, and the hooks are called in the same way.  And 50,000 that end at any
    moment, in any way: nothing is left of them.
headers
    50,000 octet strings for each property of the PROXY reader: headers of both versions, headers with errors, and
    others.
smuggling
    The 18 sequences that some server takes for an end of data, in three places, through ``Proxy`` to four kinds of next
    hosts, by DATA and by BDAT, split at each octet: the next host gets one message and no command of it.

The end of its output says what was run, and in what time.
"""

from __future__ import annotations

import sys
import time
import unittest
from pathlib import Path

from hypothesis import settings
from twisted.logger import globalLogBeginner
from twisted.trial.runner import TestLoader

sys.path.insert(0, str(Path(__file__).parent.parent))
# Before the tests are imported, since their decorators read it.
settings.register_profile("long", max_examples=50_000, deadline=None)
settings.load_profile("long")

from tests.handlers.forwarding import test_smuggling  # noqa: E402
from tests.protocol import test_random_sessions  # noqa: E402
from tests.wire import test_proxy_protocol_properties  # noqa: E402

SEEDS = 25_000
TOPICS = {
    "sessions": test_random_sessions,
    "headers": test_proxy_protocol_properties,
    "smuggling": test_smuggling,
}


def main() -> int:
    """Run the topics named on the command line, or all; returns 1 if one has failed."""
    chosen = sys.argv[1:] or list(TOPICS)
    unknown = [topic for topic in chosen if topic not in TOPICS]
    if unknown:
        print(f"{unknown[0]} is none of {', '.join(TOPICS)}", file=sys.stderr)
        return 2
    # Somebody listens to the log, as in most servers; the failures of random hooks would be gigabytes.
    globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False, discardBuffer=True)
    test_random_sessions.SEEDS = SEEDS
    test_smuggling.EVERY_SPLIT = True
    lines = []
    good = True
    for topic in chosen:
        begun = time.monotonic()
        suite = TestLoader().loadModule(TOPICS[topic])
        result = unittest.TextTestRunner(verbosity=2, warnings="ignore").run(suite)
        good = good and result.wasSuccessful()
        minutes = (time.monotonic() - begun) / 60
        failed = len(result.failures) + len(result.errors)
        lines.append(f"{topic:10} {result.testsRun} tests, {failed} failed, {minutes:.0f} min")
    print(*lines, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
