"""Failures on demand."""

from __future__ import annotations

import json

from tests.support.inbox_api import APITestCase
from twisted_smtpd.testing.failures import Failure, Failures


class FailureTests(APITestCase):
    def setUp(self) -> None:
        self.failures = Failures()
        self.start(failures=self.failures)

    def test_without_them(self) -> None:
        self.start()
        for method, path in (("GET", "chaos"), ("PUT", "chaos"), ("GET", "failures"), ("DELETE", "failures")):
            self.assertIn("not enabled", self.refused(400, f"/api/v1/{path}", method))

    def test_mailpit_s_triggers(self) -> None:
        nothing = {"ErrorCode": 451, "Probability": 0}
        names = ("Sender", "Recipient", "Authentication")
        self.assertEqual(self.get("/api/v1/chaos"), dict.fromkeys(names, nothing))
        one = {"ErrorCode": 550, "Probability": 7}
        answer = self.ask("/api/v1/chaos", "PUT", {"Recipient": one, "Sender": {"ErrorCode": 421, "Probability": 0}})
        self.assertEqual(json.loads(answer.body)["Recipient"], one)
        self.assertEqual(json.loads(answer.body)["Sender"], {"ErrorCode": 421, "Probability": 0})
        (failure,) = self.failures
        self.assertEqual((failure.where, failure.chance, str(failure.reply)[:3]), ("RCPT", 0.07, "550"))
        self.ask("/api/v1/chaos", "PUT", {"Authentication": {"ErrorCode": 535, "Probability": 100}})
        self.assertEqual([(one.where, one.chance) for one in self.failures], [("AUTH", 1.0)])
        self.ask("/api/v1/chaos", "PUT", {})
        self.assertEqual(list(self.failures), [])
        self.assertEqual(self.get("/api/v1/chaos"), dict.fromkeys(names, nothing))

    def test_triggers_out_of_bounds(self) -> None:
        for trigger in (
            {"ErrorCode": 399, "Probability": 1},
            {"ErrorCode": 600, "Probability": 1},
            {"ErrorCode": 450, "Probability": 101},
            {"ErrorCode": 450, "Probability": -1},
            {"ErrorCode": 450.5, "Probability": 1},
            {"ErrorCode": 450},
            {},
        ):
            self.refused(400, "/api/v1/chaos", "PUT", {"Sender": trigger})

    def test_a_trigger_that_was_deleted_as_a_failure(self) -> None:
        self.ask("/api/v1/chaos", "PUT", {"Sender": {"ErrorCode": 450, "Probability": 50}})
        self.do("DELETE", "/api/v1/failures")
        self.assertEqual(self.get("/api/v1/chaos")["Sender"]["Probability"], 0)

    def test_set_see_and_delete(self) -> None:
        answer = self.ask("/api/v1/failures", "POST", {"where": "data", "what": "451 4.7.1 later", "times": 2})
        self.assertEqual(answer.status, 201)
        made = json.loads(answer.body)
        self.assertEqual((made["where"], made["times"], made["used"]), ("DATA", 2, 0))
        self.ask("/api/v1/failures", "POST", {"where": "RCPT", "what": "drop", "match": "bart@"})
        self.assertEqual([one["what"] for one in self.get("/api/v1/failures")], ["451 4.7.1 later", "drop"])
        self.do("DELETE", f"/api/v1/failures/{made['id']}")
        self.refused(404, f"/api/v1/failures/{made['id']}", "DELETE")
        self.refused(404, "/api/v1/failures/x", "DELETE")
        self.assertEqual([one["what"] for one in self.get("/api/v1/failures")], ["drop"])
        self.do("DELETE", "/api/v1/failures")
        self.assertEqual(self.get("/api/v1/failures"), [])

    def test_failures_that_a_test_has_set(self) -> None:
        self.failures.add(Failure("RCPT", b"\xff\r\n", match=lambda step: True))
        (one,) = self.get("/api/v1/failures")
        self.assertTrue(one["match"].startswith("<"))

    def test_what_is_none(self) -> None:
        for body in (
            *({}, {"where": "DATA"}, {"where": "no verb", "what": "drop"}, {"where": "DATA", "what": "explode"}),
            *({"where": "DATA", "what": "drop", "chance": 0}, {"where": "DATA", "what": "drop", "times": 0}),
            {"where": "DATA", "what": "drop", "delay": 1e9},
        ):
            self.refused(400, "/api/v1/failures", "POST", body)

    def test_their_number_is_bounded(self) -> None:
        for _ in range(1000):
            self.failures.add(Failure("RCPT", "drop"))
        self.refused(409, "/api/v1/failures", "POST", {"where": "RCPT", "what": "drop"})
