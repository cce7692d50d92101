"""Lists, searches, and what is done to several messages at once."""

from __future__ import annotations

from tests.support.inbox_api import APITestCase

M = "/api/v1/messages"


class ListTests(APITestCase):
    def test_an_empty_inbox(self) -> None:
        counts = dict.fromkeys(("total", "unread", "count", "messages_count", "messages_unread", "start"), 0)
        self.assertEqual(self.get(M), {**counts, "tags": [], "messages": []})

    def test_a_message(self) -> None:
        number = self.add("Hi", "some text", recipients=("bart@y.example", "blind@z.example"), user="lisa", mailbox="a")
        (one,) = self.get(M)["messages"]
        self.assertRegex(one.pop("Created"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            one,
            {
                "ID": str(number),
                "MessageID": "",
                "From": {"Name": "Anne", "Address": "anne@x.example"},
                "To": [{"Name": "Bart", "Address": "bart@y.example"}],
                "Cc": [],
                "Bcc": [{"Name": "", "Address": "blind@z.example"}],
                "ReplyTo": [],
                "Subject": "Hi",
                "Username": "lisa",
                "Tags": [],
                "Size": 82,
                "Read": False,
                "Mailboxes": ["a"],
                "MailFrom": "bounces@x.example",
                "Recipients": ["bart@y.example", "blind@z.example"],
                "Refusal": "",
                "Session": "s1",
                "Attachments": 0,
                "Inline": 0,
                "Snippet": "some text",
            },
        )

    def test_the_newest_come_first_in_pages(self) -> None:
        for number in range(7):
            self.add(f"No. {number}")
        page = self.get(f"{M}?start=2&limit=3")
        self.assertEqual([one["Subject"] for one in page["messages"]], ["No. 4", "No. 3", "No. 2"])
        self.assertEqual((page["total"], page["count"], page["messages_count"], page["start"]), (7, 3, 7, 2))
        self.assertEqual(self.get(f"{M}?limit=0")["messages"], [])
        self.assertEqual(len(self.get(f"{M}?limit=99999999")["messages"]), 7)

    def test_no_page_is_larger_than_a_thousand(self) -> None:
        for _ in range(1001):
            self.add()
        self.assertEqual(len(self.get(f"{M}?limit=100000")["messages"]), 1000)

    def test_parameters_that_are_no_numbers(self) -> None:
        for query in ("start=x", "start=-1", "limit=-1", "limit=1e3", "start=99999999999999999999", "start=nan"):
            self.assertIn(query[:5], self.refused(400, f"{M}?{query}"))

    def test_refused_messages_are_listed_on_demand_only(self) -> None:
        self.add("good")
        self.add("bad", refusal="550 5.7.1 No")
        self.assertEqual([one["Subject"] for one in self.get(M)["messages"]], ["good"])
        (bad,) = self.get("/api/v1/search?query=is:refused")["messages"]
        self.assertEqual((bad["Subject"], bad["Refusal"]), ("bad", "550 5.7.1 No"))

    def test_head_has_the_headers_only(self) -> None:
        self.add()
        get, head = self.ask(M), self.ask(M, "HEAD")
        self.assertEqual(head.body, b"")
        self.assertEqual(head.headers["content-length"], get.headers["content-length"])

    def test_other_methods_are_refused_with_those_that_are_there(self) -> None:
        answer = self.ask(M, "POST", {})
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "DELETE, GET, HEAD, PUT"))

    def test_paths_that_are_not_there(self) -> None:
        for path in ("/api", "/api/", "/api/v1", "/api/v1/nothing", "/api/v2/messages", f"{M}/", f"{M}//"):
            answer = self.ask(path)
            self.assertEqual((answer.status, answer.headers["content-type"]), (404, "application/json"), path)


class SearchTests(APITestCase):
    def test_a_search(self) -> None:
        self.add("Your order", "number one")
        self.add("Other")
        self.store.mark([2], True)
        found = self.get("/api/v1/search?query=subject:order")
        self.assertEqual([one["ID"] for one in found["messages"]], ["1"])
        self.assertEqual((found["total"], found["unread"]), (2, 1))
        self.assertEqual((found["messages_count"], found["messages_unread"]), (1, 1))
        self.assertEqual(self.get("/api/v1/search?query=-subject:order")["messages_unread"], 0)

    def test_what_is_on_one_page_is_not_looked_for_twice(self) -> None:
        self.add("Your order")
        self.add("My order")
        self.store.mark([2], True)
        tally, asked = self.store.tally, []
        self.store.tally = lambda matching: (asked.append(matching), tally(matching))[1]
        for query, times in (("", 0), ("&limit=2", 1), ("&limit=1", 2), ("&start=1", 3), ("&limit=0", 4)):
            found = self.get(f"/api/v1/search?query=order{query}")
            self.assertEqual((found["messages_count"], found["messages_unread"], len(asked)), (2, 1, times), query)

    def test_an_empty_search_is_refused(self) -> None:
        for query in ("", "?query=", "?query=%20"):
            self.assertIn("query", self.refused(400, f"/api/v1/search{query}"))
            self.assertIn("query", self.refused(400, f"/api/v1/search{query}", "DELETE"))

    def test_a_search_that_can_t_be_understood(self) -> None:
        self.assertIn("larger:", self.refused(400, "/api/v1/search?query=larger:blue"))
        self.refused(400, "/api/v1/search?query=" + "a" * 1001)

    def test_time_zones(self) -> None:
        self.add()
        for zone in ("Europe/Berlin", "UTC"):
            self.assertEqual(self.get(f"/api/v1/search?query=after:2020-01-01&tz={zone}")["count"], 1)
        for zone in ("Mars/Olympus", "../../etc/passwd", "/etc/passwd", "%00", "a" * 61):
            self.refused(400, f"/api/v1/search?query=after:2020-01-01&tz={zone}")

    def test_delete_what_is_found(self) -> None:
        self.add("one")
        self.add("two")
        self.do("DELETE", "/api/v1/search?query=subject:one")
        self.assertEqual([one["Subject"] for one in self.get(M)["messages"]], ["two"])


class ReadTests(APITestCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(3):
            self.add(f"No. {number}")

    def unread(self) -> list[str]:
        return sorted(one["ID"] for one in self.get(M)["messages"] if not one["Read"])

    def test_some(self) -> None:
        self.do("PUT", M, {"IDs": ["1", "3", "99", "no such"], "Read": True})
        self.assertEqual(self.unread(), ["2"])
        self.do("PUT", M, {"IDs": ["1"]})
        self.assertEqual(self.unread(), ["1", "2"])

    def test_all(self) -> None:
        self.do("PUT", M, {"Read": True})
        self.assertEqual(self.unread(), [])
        self.do("PUT", M)
        self.assertEqual(self.unread(), ["1", "2", "3"])

    def test_those_that_match(self) -> None:
        self.do("PUT", M, {"Search": "subject:1", "Read": True})
        self.assertEqual(self.unread(), ["1", "3"])
        self.refused(400, M, "PUT", {"Search": "x", "IDs": ["1"], "Read": True})

    def test_names_in_any_case_as_mailpit_takes_them(self) -> None:
        self.do("PUT", M, {"ids": ["1"], "read": True})
        self.assertEqual(self.unread(), ["2", "3"])

    def test_a_form(self) -> None:
        """The client on PyPI sends one."""
        self.do("PUT", M, b"ids=1&ids=2&Read=true", Content_Type="application/x-www-form-urlencoded")
        self.assertEqual(self.unread(), ["3"])

    def test_bodies_that_are_wrong(self) -> None:
        for body in (
            *({"IDs": "1"}, {"IDs": [1]}, {"Read": "yes"}, {"Read": 1}, [], "x", 5, {"ID": ["1"]}, {"IDs": ["1" * 65]}),
            *(b"{", b'{"IDs": [', b"[" * 100_000, b"\xff\xfe", b'{"Search": "\\ud800"}', b"{}{}"),
        ):
            self.refused(400, M, "PUT", body)
        self.assertEqual(self.unread(), ["1", "2", "3"])

    def test_too_much(self) -> None:
        self.assertIn("10000", self.refused(400, M, "PUT", {"IDs": ["1"] * 10_001}))
        self.refused(413, M, "PUT", b" " * (2**20 + 1))


class DeleteTests(APITestCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(3):
            self.add(f"No. {number}")

    def left(self) -> list[str]:
        return sorted(one["ID"] for one in self.get(M)["messages"])

    def test_some(self) -> None:
        self.do("DELETE", M, {"IDs": ["1", "9"]})
        self.assertEqual(self.left(), ["2", "3"])

    def test_all(self) -> None:
        self.add("refused", refusal="550 No")
        for body in (None, {}, {"IDs": []}, {"IDs": None}):
            self.do("DELETE", M, body)
            self.assertEqual(self.left(), [])
            self.assertEqual(self.get("/api/v1/search?query=is:refused")["messages"], [])
            self.do("POST", f"{M}/restore", {"IDs": ["1", "2", "3", "4"]})
            self.assertEqual(self.left(), ["1", "2", "3"])

    def test_a_form(self) -> None:
        self.do("DELETE", M, b"ids=2", Content_Type="application/x-www-form-urlencoded")
        self.assertEqual(self.left(), ["1", "3"])

    def test_a_body_that_is_wrong_deletes_nothing(self) -> None:
        """Mailpit takes each of these for "all messages"."""
        for body in (b"{", {"ID": ["1"]}, {"IDs": [1]}, [], b"id=1"):
            self.refused(400, M, "DELETE", body)
        self.assertEqual(self.left(), ["1", "2", "3"])

    def test_restored_for_ten_minutes(self) -> None:
        self.do("DELETE", M, {"IDs": ["1", "2"]})
        self.do("POST", f"{M}/restore", {"IDs": ["1"]})
        self.assertEqual(self.left(), ["1", "3"])
        self.clock.advance(601)
        self.do("POST", f"{M}/restore", {"IDs": ["2"]})
        self.assertEqual(self.left(), ["1", "3"])
        self.refused(400, f"{M}/restore", "POST", {})
