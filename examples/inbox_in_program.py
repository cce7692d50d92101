"""A program that takes mail, keeps it, and shows it in the browser beside its own pages.

Run it with ``python examples/inbox_in_program.py``, send mail to port 8025, and look at http://127.0.0.1:8080/mail/.
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_smtpd import SMTPFactory
from twisted_smtpd.inbox.handler import Inbox
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.site import inbox_resource
from twisted_smtpd.store.sqlite import SQLiteStore


async def main(reactor, smtp_port=8025, http_port=8080, ready=None):
    store = SQLiteStore()  # or SQLiteStore("mail.db"), MemoryStore(), or one of your own
    handler = Inbox(store=store)
    factory = SMTPFactory(handler, protocol=handler.protocol(lmtp=False, failures=None))
    root = Resource()
    root.putChild(b"mail", inbox_resource(SiteSettings(title="Mail"), store))

    await factory.start_handler()
    smtp = await TCP4ServerEndpoint(reactor, smtp_port, interface="127.0.0.1").listen(factory)
    http = await TCP4ServerEndpoint(reactor, http_port, interface="127.0.0.1").listen(Site(root))
    print(f"mail to port {smtp.getHost().port}, http://127.0.0.1:{http.getHost().port}/mail/", flush=True)
    try:
        await (ready or Deferred())
    finally:
        await smtp.stopListening()
        await factory.drain()
        await factory.stop_handler()
        await http.stopListening()
        await store.close()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *map(int, sys.argv[1:]))))
