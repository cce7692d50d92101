"""The interfaces of the hooks."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyClass, verifyObject

from twisted_smtpd import interfaces
from twisted_smtpd.handlers import AsyncMessage, Debugging, Mailbox, Message
from twisted_smtpd.handlers.registry import HandlerPlugin

HOOKS = {
    "IAUTHHandler": ("handle_AUTH", ("server", "session", "envelope", "args")),
    "ICONNECTHandler": ("handle_CONNECT", ("server", "session", "envelope")),
    "IDATAHandler": ("handle_DATA", ("server", "session", "envelope")),
    "IDATAStreamHandler": ("handle_DATA_STREAM", ("server", "session", "envelope", "stream")),
    "IDISCONNECTHandler": ("handle_DISCONNECT", ("server", "session", "envelope", "reason")),
    "IEHLOHandler": ("handle_EHLO", ("server", "session", "envelope", "hostname")),
    "IEHLOResponsesHandler": ("handle_EHLO", ("server", "session", "envelope", "hostname", "responses")),
    "IExceptionHandler": ("handle_exception", ("error",)),
    "IHELOHandler": ("handle_HELO", ("server", "session", "envelope", "hostname")),
    "IMAILHandler": ("handle_MAIL", ("server", "session", "envelope", "address", "mail_options")),
    "IOffersServices": ("services", ()),
    "IStartable": ("start", ("server",)),
    "IStoppable": ("stop", ()),
    "IReloadable": ("reload", ()),
    "IMeasured": ("metrics", ()),
    "IOffersProtocol": ("protocol", ("lmtp", "failures")),
    "IPreceded": ("preceded_by", ("handlers",)),
    "INOOPHandler": ("handle_NOOP", ("server", "session", "envelope", "arg")),
    "IPROXYHandler": ("handle_PROXY", ("server", "session", "envelope", "proxy_data")),
    "IQUITHandler": ("handle_QUIT", ("server", "session", "envelope")),
    "IRCPTHandler": ("handle_RCPT", ("server", "session", "envelope", "address", "rcpt_options")),
    "IRSETHandler": ("handle_RSET", ("server", "session", "envelope")),
    "ISTARTTLSHandler": ("handle_STARTTLS", ("server", "session", "envelope")),
    "IETRNHandler": ("handle_ETRN", ("server", "session", "envelope", "queue")),
    "IEXPNHandler": ("handle_EXPN", ("server", "session", "envelope", "name")),
    "IVRFYHandler": ("handle_VRFY", ("server", "session", "envelope", "address")),
}


class InterfaceTests(SynchronousTestCase):
    def test_each_hook_has_an_interface_with_the_arguments_of_the_handler_page(self) -> None:
        found: dict[str, tuple[str, tuple[str, ...]]] = {}
        for name, interface in vars(interfaces).items():
            if isinstance(interface, InterfaceClass) and name not in ("Interface", "IHandlerPlugin"):
                ((hook, method),) = interface.namesAndDescriptions()
                found[name] = (hook, method.getSignatureInfo()["positional"])
        self.assertEqual(found, HOOKS)

    def test_all_names_exist_and_are_documented(self) -> None:
        self.assertEqual(sorted(interfaces.__all__), sorted([*HOOKS, "IHandlerPlugin"]))
        for name in interfaces.__all__:
            interface = getattr(interfaces, name)
            self.assertTrue(interface.__doc__, name)
            for _, member in interface.namesAndDescriptions():
                self.assertTrue(inspect.cleandoc(member.__doc__ or ""), f"{name}.{member.getName()}")

    def test_the_built_in_handlers_verify(self) -> None:
        for cls in (Debugging, Message, AsyncMessage, Mailbox):
            self.assertTrue(verifyClass(interfaces.IDATAHandler, cls))
        self.assertTrue(verifyObject(interfaces.IDATAHandler, Debugging()))
        self.assertTrue(verifyObject(interfaces.IDATAHandler, Mailbox(self.mktemp())))

    def test_a_plugin_verifies(self) -> None:
        self.assertTrue(verifyObject(interfaces.IHandlerPlugin, HandlerPlugin("a", "b", "c.D")))

    def test_a_wrong_signature_is_found(self) -> None:
        @implementer(interfaces.IRCPTHandler)
        class Short:
            def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str) -> str:
                return "250 OK"

        self.assertRaises(Invalid, verifyObject, interfaces.IRCPTHandler, Short())

    def test_an_async_hook_verifies(self) -> None:
        @implementer(interfaces.IMAILHandler)
        class Async:
            async def handle_MAIL(
                self, server: Any, session: Any, envelope: Any, address: str, mail_options: list[str]
            ) -> str:
                return "250 OK"

        self.assertTrue(verifyObject(interfaces.IMAILHandler, Async()))
