"""Checks of one message, in Mailpit's JSON where it has them."""

from __future__ import annotations

import re
from typing import Any

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, as_json
from twisted_smtpd.inbox.header_checks import check_headers
from twisted_smtpd.inbox.html_support import Feature, HTMLSupport, html_support
from twisted_smtpd.runtime.computing import compute, is_large

__all__ = ["check_html", "check_links", "check_message_headers"]

_TAG = re.compile("<[a-z]", re.IGNORECASE)
_PROGRAM = re.compile(r"(.*) \((.*)\)")
# Characters of HTML in which tags are counted.
_COUNTED = 2**20


async def check_html(call: Call) -> Answer:
    """What mail programs don't show of the HTML."""
    content = await call.context.contents.of(await call.message())
    if not content.html:
        raise APIError(400, "message does not contain HTML")
    support = await compute(html_support, content) if is_large(content.html) else html_support(content)
    return as_json(_html_json(support, content.html[:_COUNTED]))


def _html_json(support: HTMLSupport, html: str) -> dict[str, Any]:
    known = sum(feature.known for feature in support.features)
    full = sum(feature.full for feature in support.features)
    partly = sum(feature.partly for feature in support.features)
    platforms: dict[str, list[str]] = {}
    for feature in support.problems:
        for program in feature.lacking:
            family, platform = _program(program)
            if family not in platforms.setdefault(platform, []):
                platforms[platform].append(family)
    return {
        "Total": {
            "Tests": len(support.features),
            "Nodes": len(_TAG.findall(html)),
            **_percents(full, partly, known),
        },
        "Platforms": platforms,
        "Warnings": list(map(_warning, support.problems)),
    }


def _percents(full: int, partly: int, known: int) -> dict[str, float]:
    shares = (full, partly, known - full - partly) if known else (1, 0, 0)
    names = ("Supported", "Partial", "Unsupported")
    return {name: round(100 * share / (known or 1), 2) for name, share in zip(names, shares, strict=True)}


def _program(name: str) -> tuple[str, str]:
    found = _PROGRAM.fullmatch(name)
    return (found[1], found[2]) if found else (name, "")


def _warning(feature: Feature) -> dict[str, Any]:
    results = []
    for program in feature.lacking:
        family, platform = _program(program)
        results.append(
            {"Name": program, "Family": family, "Platform": platform, "Version": "", "Support": "no", "NoteNumber": ""}
        )
    return {
        "Slug": feature.slug,
        "Title": feature.title,
        "Description": "",
        "URL": feature.url,
        "Category": feature.slug.partition("-")[0],
        "Tags": [],
        "Keywords": "",
        "Results": results,
        "NotesByNumber": {},
        "Score": {"Found": 1, **_percents(feature.full, feature.partly, feature.known)},
    }


async def check_links(call: Call) -> Answer:
    """Which links lead nowhere."""
    checker = call.context.link_checker
    if checker is None:
        raise APIError(400, "the server was not started with --check-links")
    content = await call.context.contents.of(await call.message())
    found = await checker.check(content.links)
    return as_json(
        {
            "Errors": sum(not result.is_good for result in found),
            "Links": [{"URL": result.url, "StatusCode": result.status, "Status": result.text} for result in found],
        }
    )


async def check_message_headers(call: Call) -> Answer:
    """What is missing in the headers, or wrong."""
    stored = await call.message()
    content = await call.context.contents.of(stored)
    large = is_large(stored.message.content)
    found = await compute(check_headers, stored, content) if large else check_headers(stored, content)
    return as_json({"Findings": [{"Level": one.level, "Text": one.text, "Rule": one.rule} for one in found]})
