"""Tags of messages."""

from __future__ import annotations

from tests.support.inbox_api import APITestCase

TAGS = "/api/v1/tags"
M = "/api/v1/messages"


class TagTests(APITestCase):
    def setUp(self) -> None:
        super().setUp()
        for _ in range(2):
            self.add()

    def tags(self) -> list[list[str]]:
        return [one["Tags"] for one in reversed(self.get(M)["messages"])]

    def test_set_and_replace(self) -> None:
        self.do("PUT", TAGS, {"IDs": ["1", "2"], "Tags": ["b", "a"]})
        self.do("PUT", TAGS, {"IDs": ["2", "9"], "Tags": ["c"]})
        self.assertEqual(self.tags(), [["a", "b"], ["c"]])
        self.assertEqual(self.get(TAGS), ["a", "b", "c"])
        self.do("PUT", TAGS, {"IDs": ["1"]})
        self.assertEqual(self.tags(), [[], ["c"]])
        self.refused(400, TAGS, "PUT", {"Tags": ["x"]})

    def test_tags_are_tidied(self) -> None:
        self.do("PUT", TAGS, {"IDs": ["1"], "Tags": [" a \n b ", ",", "\x00", "x,y", "ä/?%"]})
        self.assertEqual(self.tags()[0], ["a b", "x y", "ä/?%"])
        for tag in ("", "x" * 101):
            self.refused(400, TAGS, "PUT", {"IDs": ["1"], "Tags": [tag]})

    def test_rename(self) -> None:
        self.do("PUT", TAGS, {"IDs": ["1", "2"], "Tags": ["old", "other"]})
        self.do("PUT", f"{TAGS}/old", {"Name": "new one"})
        self.assertEqual(self.tags(), [["new one", "other"]] * 2)
        self.do("PUT", f"{TAGS}/other", {"Name": "other"})
        self.assertEqual(self.tags(), [["new one", "other"]] * 2)
        self.refused(404, f"{TAGS}/old", "PUT", {"Name": "x"})
        self.refused(400, f"{TAGS}/other", "PUT", {"Name": ","})
        self.refused(400, f"{TAGS}/other", "PUT", {})

    def test_delete(self) -> None:
        self.do("PUT", TAGS, {"IDs": ["1", "2"], "Tags": ["a/b ä", "other"]})
        self.do("DELETE", f"{TAGS}/a%2Fb%20%C3%A4")
        self.assertEqual(self.tags(), [["other"]] * 2)
        self.refused(404, f"{TAGS}/none", "DELETE")
