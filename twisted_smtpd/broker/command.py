"""``twisted-smtpd consume``: a process that delivers messages out of a broker."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from twisted_smtpd.broker.addresses import read_urls
from twisted_smtpd.broker.claims import claim_store
from twisted_smtpd.broker.errors import BrokerError
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.queue.schedule import Schedule, seconds_of
from twisted_smtpd.runtime.exit_status import EX_USAGE
from twisted_smtpd.runtime.lifecycle import HandlerStartError

__all__ = ["main"]

log = Logger()

NAME = "twisted-smtpd consume"


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    # Imported here: pika is an extra.
    from twisted_smtpd.broker.handler import add_broker_arguments

    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Takes messages out of RabbitMQ, where `twisted-smtpd -c amqp` has put them, and gives them to a "
        "handler.",
        usage=f"{NAME} [URL ...] [options] -c HANDLER [ARGUMENTS ...]",
    )
    add_broker_arguments(parser)
    defaults = Schedule()
    for name, default, help in (
        ("retry", defaults.first, "until the first retry"),
        ("retry-max", defaults.longest, "between two retries at most"),
        ("expire", defaults.expiry, "until a message is given up"),
        ("warn", defaults.warning, "until the sender is told of a delay; 0: never"),
    ):
        parser.add_argument(f"--{name}", type=seconds_of, default=default, metavar="SECONDS", help=help)
    parser.add_argument("--deliveries", type=int, default=20, metavar="N", help="at the same time [default: 20]")
    parser.add_argument("--hostname", metavar="NAME", help="the server's name")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--log-level", choices=("debug", "info", "warn", "error", "critical"), default="info")
    parser.add_argument(
        "-c", "--class", dest="handler", nargs=argparse.REMAINDER, metavar="HANDLER", help="the handler"
    )
    return parser.parse_args(list(words))


def _consumer(options: argparse.Namespace) -> Any:
    # Imported here: pika is an extra.
    from twisted_smtpd.broker.consumer import Consumer

    if not options.handler:
        raise ValueError("name the handler that consumes the messages: -c HANDLER")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    name, *arguments = options.handler
    if arguments[:1] == ["--"]:
        del arguments[0]
    schedule = Schedule(options.retry, max(options.retry_max, options.retry), options.expire, options.warn)
    return Consumer(
        read_urls(options.urls, options.url_file, os.environ),
        make_handler(name, [word for word in arguments if word != "--"]),
        options.queue,
        schedule=schedule,
        claims=None if options.claims is None else claim_store(options.claims),
        deliveries=options.deliveries,
        hostname=options.hostname,
    )


def main(words: Sequence[str]) -> None:
    """Deliver messages until a signal ends it.

    It exits with 64 if the command line is wrong, and with 1 if the broker or the handler can't be used.

    :param words: the command line.
    """
    try:
        options = _arguments(words)
        consumer = _consumer(options)
    except ImportError as error:
        sys.exit(f"{NAME}: {error}: pip install 'twisted-smtpd[amqp]'")
    except (ValueError, HandlerError, OSError) as error:
        sys.stderr.write(f"{NAME}: {' '.join(str(error).split())}\n")
        sys.exit(EX_USAGE)
    # Imported here, after handlers: one of them may install a reactor.
    from twisted.internet import reactor

    from twisted_smtpd.logs.setup import start_logging

    start_logging(options.log_format, options.log_level)
    _run(consumer, reactor)


def _run(consumer: Any, reactor: Any) -> None:
    failed: list[str] = []

    def stop(failure: Any) -> None:
        if failure.check(BrokerError, HandlerStartError, OSError) is None:
            log.failure("the consumer could not start", failure)
        failed.append(" ".join(str(failure.value).split()))
        try:
            reactor.stop()
        except ReactorNotRunning:
            reactor.callWhenRunning(reactor.stop)

    def start() -> None:
        starting: Deferred[None] = consumer.startService()
        starting.addErrback(stop)

    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", consumer.stopService)
    reactor.run()
    if failed:
        sys.exit(f"{NAME}: {failed[0]}")
