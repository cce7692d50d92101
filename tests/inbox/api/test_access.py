"""A token of one mailbox is for that mailbox, whatever is asked."""

from __future__ import annotations

from base64 import b64encode

from tests.support.inbox_api import APITestCase
from tests.support.web import Browser
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.site import make_site

M = "/api/v1/messages"
OWN = {"Authorization": "Bearer t-ann"}
ALL = {"Authorization": "Bearer t-all"}


class NoTokenTests(APITestCase):
    def test_the_api_says_in_json_what_is_missing(self) -> None:
        self.start(tokens={"secret": None})
        for path in (M, "/api/v1/events", "/api/v1/openapi.json"):
            self.assertIn("token", self.refused(401, path))
            self.assertIn("token", self.refused(401, path, Authorization="Bearer wrong"))
        for path in ("/livez", "/readyz"):
            self.assertEqual(self.ask(path).body, b"ok")

    def test_pages_of_other_sites(self) -> None:
        self.add()
        self.refused(403, M, "DELETE", {}, Origin="https://evil.example")
        self.refused(403, M, Host="evil.example")
        self.assertEqual(self.get(M)["total"], 1)


class BrowserTests(APITestCase):
    """What sends mail, or has it fail, takes a token, or the page itself."""

    ROUTES = (("POST", "/api/v1/send"), ("PUT", "/api/v1/chaos"), ("DELETE", "/api/v1/failures"))
    OTHERS = (
        *(("POST", "/api/v1/message/1/release"), ("POST", "/api/v1/failures"), ("DELETE", "/api/v1/failures/1")),
        ("GET", "/api/v1/message/1/link-check"),
    )

    def test_a_browser_without_the_page_s_token(self) -> None:
        for name, value in (
            ("Sec_Fetch_Site", "same-origin"),
            ("Origin", "http://localhost:8026"),
            ("User_Agent", "Mozilla/5.0"),
        ):
            for method, path in (*self.ROUTES, *self.OTHERS):
                self.assertIn("page itself", self.refused(403, path, method, {}, **{name: value}))

    def test_programs_without_a_token(self) -> None:
        self.browser = Browser(make_site(SiteSettings(), self.store, self.clock), self.clock)
        for method, path in (*self.ROUTES, *self.OTHERS):
            self.assertIn("--http-trust-programs", self.refused(403, path, method, {}, User_Agent="curl/8"))

    def test_programs_that_are_trusted(self) -> None:
        self.start(trust_programs=True)
        for method, path in self.ROUTES:
            self.assertEqual(self.ask(path, method, {}, User_Agent="curl/8").status, 400)

    def test_programs_with_a_password(self) -> None:
        self.start(users={"anne": "secret"}, trust_programs=False)
        password = f"Basic {b64encode(b'anne:secret').decode()}"
        for method, path in self.ROUTES:
            self.assertEqual(self.ask(path, method, {}, User_Agent="curl/8", Authorization=password).status, 400)
            # A browser sends it by itself.
            self.refused(403, path, method, {}, User_Agent="Mozilla/5.0", Authorization=password)

    def test_a_token(self) -> None:
        self.start(tokens={"t": None}, trust_programs=False)
        headers = {"Authorization": "Bearer t", "Origin": "http://localhost:8026"}
        for method, path in self.ROUTES:
            self.assertEqual(self.ask(path, method, {}, **headers).status, 400)

    def test_the_page(self) -> None:
        self.start(trust_programs=False)
        page = self.browser.ask("/")
        cookie = page.headers["set-cookie"].partition(";")[0]
        token = page.text.partition('data-csrf="')[2].partition('"')[0]
        headers = {"Cookie": cookie, "X_CSRF_Token": token, "Origin": "http://localhost:8026"}
        for method, path in self.ROUTES:
            self.assertEqual(self.ask(path, method, {}, **headers).status, 400)


class MailboxTests(APITestCase):
    def setUp(self) -> None:
        self.start(tokens={"t-ann": "ann", "t-all": None})
        self.add("hers", mailbox="ann")
        self.add("his", mailbox="bob")
        self.add("theirs", mailboxes=("ann", "bob"))
        self.store.tag([1], ["red"])
        self.store.tag([2], ["blue"])
        self.browser.headers.update(OWN)

    def subjects(self, path: str) -> list[str]:
        return [one["Subject"] for one in self.get(path)["messages"]]

    def test_lists(self) -> None:
        self.assertEqual(self.subjects(M), ["theirs", "hers"])
        self.assertEqual(self.subjects("/api/v1/search?query=subject:h"), ["theirs", "hers"])
        page = self.get(M)
        self.assertEqual((page["total"], page["tags"]), (2, ["red"]))
        self.assertEqual(self.get("/api/v1/tags"), ["red"])
        self.assertEqual([one["Name"] for one in self.get("/api/v1/mailboxes")], ["ann"])
        info = self.get("/api/v1/info")
        self.assertEqual((info["Messages"], info["Tags"]), (2, {"red": 1}))

    def test_the_mailbox_of_another(self) -> None:
        for path in (f"{M}?mailbox=bob", "/api/v1/search?query=x&mailbox=bob", "/api/v1/tags?mailbox=bob"):
            self.assertIn("another mailbox", self.refused(403, path))
        self.refused(403, f"{M}?mailbox=bob", "DELETE")
        self.assertEqual(self.subjects(f"{M}?mailbox=ann"), ["theirs", "hers"])

    def test_the_search_can_t_get_out(self) -> None:
        self.assertEqual(self.subjects("/api/v1/search?query=mailbox:bob"), ["theirs"])

    def test_a_message_of_another(self) -> None:
        for end in ("", "/headers", "/raw", "/part/0", "/part/0/thumb", "/transcript", "/links", "/codes"):
            self.refused(404, f"/api/v1/message/2{end}")
        for end in ("html", "txt"):
            self.refused(404, f"/view/2.{end}")
        self.assertEqual(self.get("/api/v1/message/latest")["Subject"], "theirs")

    def test_what_is_done_to_all_is_done_to_its_own(self) -> None:
        self.do("PUT", M, {"Read": True})
        self.do("PUT", "/api/v1/tags", {"IDs": ["1", "2"], "Tags": ["green"]})
        self.do("DELETE", M)
        self.browser.headers.update(ALL)
        (left,) = self.get(M)["messages"]
        self.assertEqual((left["Subject"], left["Read"], left["Tags"]), ("his", False, ["blue"]))

    def test_ids_of_others_are_left_alone(self) -> None:
        self.do("PUT", M, {"IDs": ["1", "2"], "Read": True})
        self.do("DELETE", M, {"IDs": ["2"]})
        self.refused(404, "/api/v1/tags/blue", "DELETE")
        self.browser.headers.update(ALL)
        read = {one["Subject"]: one["Read"] for one in self.get(M)["messages"]}
        self.assertEqual(read, {"hers": True, "his": False, "theirs": False})

    def test_it_takes_back_what_it_has_deleted_only(self) -> None:
        self.store.delete([2])
        self.do("DELETE", M, {"IDs": ["1"]})
        self.do("POST", f"{M}/restore", {"IDs": ["1", "2"]})
        self.browser.headers.update(ALL)
        self.assertEqual(self.subjects(M), ["theirs", "hers"])
        self.do("POST", f"{M}/restore", {"IDs": ["2"]})
        self.assertEqual(self.subjects(M), ["theirs", "his", "hers"])

    def test_what_concerns_the_whole_server(self) -> None:
        for method, path in (
            *(("GET", "/api/v1/chaos"), ("GET", "/api/v1/failures"), ("DELETE", "/api/v1/failures")),
            *(("DELETE", "/api/v1/failures/1"), ("POST", "/api/v1/message/1/release")),
        ):
            self.assertIn("whole server", self.refused(403, path, method))

    def test_all_mailboxes(self) -> None:
        self.browser.headers.update(ALL)
        self.assertEqual(self.subjects(f"{M}?mailbox=bob"), ["theirs", "his"])
        both = {"Total": 2, "Unread": 2, "Refused": 0}
        self.assertEqual(self.get("/api/v1/mailboxes"), [{"Name": "ann", **both}, {"Name": "bob", **both}])
