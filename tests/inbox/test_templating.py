from __future__ import annotations

from datetime import datetime, timedelta, timezone

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.inbox.templating import age, hue, initial, make_environment, size, with_links
from twisted_smtpd.store.summary import Address


class FilterTests(SynchronousTestCase):
    """Values as people read them."""

    def test_sizes(self) -> None:
        octets = (0, 999, 1000, 9_949, 12_345, 999_499, 1_000_000, 25_300_000)
        self.assertEqual(
            [size(one) for one in octets], ["0 B", "999 B", "1.0 KB", "9.9 KB", "12 KB", "999 KB", "1.0 MB", "25.3 MB"]
        )

    def test_ages(self) -> None:
        now = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)
        for seconds, text in {-5: "now", 59: "now", 60: "1 min", 3599: "59 min", 7200: "2 h", 86400: "3 May"}.items():
            self.assertEqual(age(now - timedelta(seconds=seconds), now), text)
        self.assertEqual(age(now - timedelta(days=365), now), "4 May 2025")

    def test_links(self) -> None:
        text = str(with_links('<b> https://example.org/?a=1&b="x" (http://x.example/).'))
        self.assertIn("&lt;b&gt;", text)
        self.assertIn('href="https://example.org/?a=1&amp;b="', text)
        self.assertIn(">http://x.example/</a>).", text)
        self.assertIn('rel="noopener noreferrer nofollow"', text)
        self.assertNotIn("href", str(with_links("javascript:attack()")))

    def test_senders(self) -> None:
        self.assertEqual(initial(Address("", "anne@example.org")), "A")
        self.assertEqual(initial(Address("<ß>", "x")), "S")
        self.assertEqual(initial(None), "?")
        self.assertIn(hue("x" * 1000), range(10))

    def test_everything_is_escaped(self) -> None:
        template = make_environment().from_string("{{ x }}<a title='{{ x }}'>")
        self.assertEqual(template.render(x="<'\">"), "&lt;&#39;&#34;&gt;<a title='&lt;&#39;&#34;&gt;'>")
