"""What a request is allowed to do, found out before anything answers it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.task import deferLater

from twisted_smtpd.inbox.access import Access
from twisted_smtpd.inbox.settings import SiteSettings

__all__ = ["HEADERS", "PAGE_POLICY", "Guard"]

#: What a page of ours may do: run our scripts, use our styles, and ask our server; nothing from elsewhere.
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types"
)
#: The headers of every response; what answers may set others.
HEADERS = (
    (b"content-security-policy", PAGE_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cache-control", b"no-store"),
    (b"server", b"twisted-smtpd"),
)

COOKIE = b"smtpd_inbox"
# Seconds that a wrong password or token waits for its answer.
_PENALTY = 1.0
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
# What a form on a page of another site can send.
_FORMS = ("", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


class Guard:
    """Says what a request is allowed to do.

    :param settings: what the site was started with.
    :param reactor: the provider of time.
    """

    def __init__(self, settings: SiteSettings, reactor: Any) -> None:
        self._settings, self._reactor = settings, reactor
        self._key = secrets.token_bytes(32)

    def refusal(self, request: Any) -> str | None:
        """Why a request is not answered at all, in a line; ``None`` if it may be."""
        name = _host_name(_header(request, "host"))
        if not self._is_our_name(name):
            return (
                f"This server does not answer to the name {name!r}. If it is its name, start it with --http-host {name}"
                if name
                else "The request does not say for which host it is"
            )
        if self._is_cross_site(request):
            return "A page of another site must not do this"
        return None

    def _is_our_name(self, name: str) -> bool:
        if name == "localhost" or name.endswith(".localhost") or name in self._settings.http_hosts:
            return True
        try:
            # DNS gives no address to an address, so no other site can take one for its own name.
            ip_address(name)
        except ValueError:
            return False
        return True

    def _is_cross_site(self, request: Any) -> bool:
        fetched, origin = _header(request, "sec-fetch-site"), _header(request, "origin")
        if request.method in _SAFE:
            # Pages of other sites may have links to us, but not what our server says in them.
            return fetched in ("cross-site", "same-site") and _header(request, "sec-fetch-mode") != "navigate"
        if fetched not in ("", "same-origin", "none"):
            return True
        if origin:
            # A proxy in front of us may have another scheme.
            place, host = urlsplit(origin).netloc.lower(), _header(request, "host").lower()
            # It may have another name or port as well; but so has another server on the same host.
            is_ours = _host_name(place) in self._settings.http_hosts and self._is_from_page(request)
            return not place or (place != host and not is_ours)
        if fetched or _header(request, "authorization").lower().startswith("bearer "):
            return False
        # A very old browser, or a program: a form needs the page's token.
        kind = _header(request, "content-type").partition(";")[0].strip().lower()
        return self._is_browser(request) and kind in _FORMS and not self._is_from_page(request)

    def _is_browser(self, request: Any) -> bool:
        return "mozilla" in _header(request, "user-agent").lower()

    async def access(self, request: Any) -> Access | None:
        """What a request may see; ``None`` if it has to show a password or token first."""
        from_page = self._is_from_page(request)
        if self._settings.is_open:
            return Access(from_page=from_page)
        scheme, _, value = _header(request, "authorization").partition(" ")
        if scheme.lower() == "bearer":
            found = self._by_token(value.strip(), from_page)
        elif scheme.lower() == "basic":
            found = self._by_password(value.strip(), from_page)
        else:
            return None
        if found is None:
            await deferLater(self._reactor, _PENALTY, lambda: None)
        return found

    def _by_token(self, given: str, from_page: bool) -> Access | None:
        # All are compared, so that the time tells nothing.
        found = [
            Access(mailbox, None, "token", from_page)
            for token, mailbox in self._settings.tokens.items()
            if _is_same(token, given)
        ]
        return found[0] if found else None

    def _by_password(self, value: str, from_page: bool) -> Access | None:
        try:
            user, _, password = b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            return None
        right = [_is_same(name, user) & _is_same(known, password) for name, known in self._settings.users.items()]
        if any(right):
            return Access(None, user, "password", from_page)
        # A browser asks for a name and a password only: a token may be given as the password.
        return self._by_token(password, from_page)

    def challenges(self) -> list[bytes]:
        """What a request without a password or token is asked for, as values of WWW-Authenticate."""
        return [b'Basic realm="inbox", charset="UTF-8"', b'Bearer realm="inbox"']

    def page_token(self, request: Any, path: str) -> str:
        """The token with which a page of ours proves that it is one; sets the cookie that belongs to it.

        :param request: the request for the page.
        :param path: the path under which all pages are.
        """
        cookie = request.getCookie(COOKIE) or b""
        if len(cookie) != 43:
            cookie = secrets.token_urlsafe(32).encode()
            request.addCookie(COOKIE, cookie, path=path or "/", httpOnly=True, sameSite="strict")
        return self._token(cookie)

    def _token(self, cookie: bytes) -> str:
        return hmac.new(self._key, cookie, hashlib.sha256).hexdigest()

    def _is_from_page(self, request: Any) -> bool:
        cookie, token = request.getCookie(COOKIE), _header(request, "x-csrf-token")
        return bool(cookie and token) and _is_same(self._token(cookie), token)


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _header(request: Any, name: str) -> str:
    # Two headers of one name are never right for those that are asked for here.
    values = request.requestHeaders.getRawHeaders(name, [])
    return str(values[0]) if len(values) == 1 else ", ".join(values)


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
