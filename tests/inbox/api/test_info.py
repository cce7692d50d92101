"""What the server says of itself: figures, health, the OpenAPI document; and what goes wrong."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from twisted.internet.defer import Deferred, fail

from tests.support.inbox_api import APITestCase, message
from twisted_smtpd.inbox.api.openapi import document
from twisted_smtpd.inbox.api.schemas import COMPONENTS
from twisted_smtpd.inbox.api.table import ROUTES
from twisted_smtpd.testing.failures import Failures

M = "/api/v1/messages"


class InfoTests(APITestCase):
    def test_info(self) -> None:
        self.start(version="1.2")
        self.add("x")
        self.add("x", refusal="550 No")
        self.store.tag([1], ["red"])
        self.store.delete([1])
        self.store.restore([1])
        self.clock.advance(75)
        info = self.get("/api/v1/info")
        self.assertEqual((info["Version"], info["Messages"], info["Unread"]), ("1.2", 1, 1))
        self.assertEqual(info["Tags"], {"red": 1})
        statistics = info["RuntimeStats"]
        self.assertEqual((statistics["SMTPAccepted"], statistics["SMTPRejected"], statistics["Uptime"]), (1, 1, 75))
        self.assertEqual((statistics["SMTPAcceptedSize"], statistics["MessagesDeleted"]), (77, 1))
        self.assertGreater(statistics["Memory"], 2**20)

    def test_settings_for_mailpit_s_page(self) -> None:
        settings = self.get("/api/v1/webui")
        self.assertFalse(settings["MessageRelay"]["Enabled"] or settings["ChaosEnabled"])
        self.start(failures=Failures(), title="Mine")
        self.assertTrue(self.get("/api/v1/webui")["ChaosEnabled"])
        self.assertEqual(self.get("/api/v1/webui")["Label"], "Mine")

    def test_health(self) -> None:
        self.assertEqual(self.ask("/livez").body, b"ok")
        self.assertEqual(self.ask("/readyz").body, b"ok")
        for broken in (lambda mailbox: fail(OSError("disk")), lambda mailbox: 1 / 0):
            self.patch(self.store, "counts", broken)
            self.assertEqual(self.ask("/livez").status, 200)
            self.assertNotIn("disk", self.refused(503, "/readyz"))


class DocumentTests(APITestCase):
    def test_it_is_served(self) -> None:
        self.start(version="1.2")
        served = self.get("/api/v1/openapi.json")
        self.assertEqual(served, json.loads(json.dumps(document(ROUTES, "1.2"))))
        self.assertEqual(served["openapi"], "3.1.0")

    def test_each_route_is_in_it_once(self) -> None:
        paths = document(ROUTES, "1")["paths"]
        self.assertEqual(sum(map(len, paths.values())), len(ROUTES))
        names = [one["operationId"] for operations in paths.values() for one in operations.values()]
        self.assertEqual(len(names), len(set(names)))

    def test_each_schema_is_one_and_is_used(self) -> None:
        text = json.dumps(document(ROUTES, "1"))
        for name, schema in COMPONENTS.items():
            Draft202012Validator.check_schema(schema)
            self.assertTrue(f'"#/components/schemas/{name}"' in text, name)

    def test_only_one_route_matches_a_path(self) -> None:
        for route in ROUTES:
            path = route.path.replace("{", "").replace("}", "")
            found = [other.path for other in ROUTES if other.method == route.method and other.match(path) is not None]
            self.assertEqual(found, [route.path])


class TroubleTests(APITestCase):
    def test_an_error_of_the_store_is_for_the_log_only(self) -> None:
        self.patch(self.store, "counts", lambda mailbox: fail(OSError("secret")))
        self.browser.clock = None
        answer = self.browser.ask(M)
        self.assertEqual((answer.status, b"secret" in answer.body), (500, False))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_client_that_goes_away_while_the_store_works(self) -> None:
        pending: Deferred[Any] = Deferred()
        self.patch(self.store, "counts", lambda mailbox: pending)
        self.begin(M).loseConnection()
        self.assertTrue(pending.called)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_client_that_goes_away_while_the_store_is_asked_for_its_health(self) -> None:
        self.patch(self.store, "counts", lambda mailbox: Deferred())
        self.begin("/readyz").loseConnection()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_error_after_the_client_has_gone_is_logged(self) -> None:
        def broken(pending: Deferred[Any]) -> None:
            pending.errback(OSError("disk"))

        self.patch(self.store, "counts", lambda mailbox: Deferred(broken))
        self.begin(M).loseConnection()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_switches(self) -> None:
        self.store.add(message())
        self.assertIn("dl", self.refused(400, "/api/v1/message/1/raw?dl=perhaps"))

    def test_queries_are_bounded(self) -> None:
        self.refused(400, f"{M}?x=" + "a" * 16_001)
        self.refused(400, f"{M}?" + "a=1&" * 60)
        self.assertEqual(self.ask(f"{M}?nothing=1&limit=5&limit=7&%ff=%ff").status, 200)
