"""Failures on demand: Mailpit's three triggers, and all that the server for tests can do."""

from __future__ import annotations

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, as_json, as_number, done
from twisted_smtpd.testing.failures import Failure, Failures

__all__ = ["add_failure", "forget_failure", "forget_failures", "list_failures", "set_triggers", "triggers"]

#: How many failures there may be at the same time.
MAX_FAILURES = 1_000


def _failures(call: Call) -> Failures:
    found: Failures | None = call.context.settings.failures
    if found is None:
        raise APIError(400, "Chaos is not enabled: failures on demand were not asked for when the server was started")
    return found


async def triggers(call: Call) -> Answer:
    """Mailpit's triggers."""
    _failures(call)
    return as_json(call.context.chaos.get())


async def set_triggers(call: Call) -> Answer:
    """Set Mailpit's triggers."""
    _failures(call)
    call.context.chaos.set(call.body)
    return as_json(call.context.chaos.get())


async def list_failures(call: Call) -> Answer:
    """All failures."""
    return as_json([failure.as_dict() for failure in _failures(call)])


async def add_failure(call: Call) -> Answer:
    """Have something fail."""
    there = _failures(call)
    if len(there) >= MAX_FAILURES:
        raise APIError(409, f"there are {MAX_FAILURES:,} failures already: delete some")
    try:
        failure = Failure.from_dict(call.body)
    except ValueError as error:
        raise APIError(400, str(error)) from None
    return as_json(there.add(failure).as_dict(), 201)


async def forget_failures(call: Call) -> Answer:
    """Forget all failures."""
    _failures(call).clear()
    return done()


async def forget_failure(call: Call) -> Answer:
    """Forget one failure."""
    number = as_number(call.path["Failure"])
    failure = None if number is None else _failures(call).get(number)
    if failure is None:
        raise APIError(404, "there is no such failure")
    failure.remove()
    return done()
