"""The mail transaction: MAIL, RCPT, DATA (RFC 5321 section 3.3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from twisted_smtpd.protocol.dialog import CANCELLED, TOOK_TOO_LONG
from twisted_smtpd.protocol.dispatch import Server, syntax
from twisted_smtpd.runtime.awaiting import MISSING, settle
from twisted_smtpd.session import Recipient
from twisted_smtpd.stream import ContentStream, StreamInterrupted
from twisted_smtpd.wire.addresses import parse_path, plain_path
from twisted_smtpd.wire.commands import parse_parameters
from twisted_smtpd.wire.content import ContentReader, DotReader
from twisted_smtpd.wire.replies import BadStatus, Reply, SMTPReplyError

__all__ = ["Transaction"]

log = Logger()

GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"

# What is logged of a message; all keys are here, since a copy that needs no new ones is the cheapest.
MESSAGE_EVENT: dict[str, Any] = {
    "log_logger": log,
    "log_level": LogLevel.info,
    "log_namespace": log.namespace,
    "log_source": None,
    "log_format": "{session} {peer} from=<{sender}> recipients={recipients} size={size}: {code}",
    "log_time": 0.0,
    "session": None,
    "peer": None,
    "sender": None,
    "recipients": None,
    "size": None,
    "code": None,
}
publish = log.observer.__call__


class Transaction(Server):
    """The commands of a transaction."""

    # Each is done at once where that is possible (see Command.at_once); the coroutine is for the rest.

    @syntax("MAIL FROM:<address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        await self.check_helo_needed()
        await self.check_auth_needed("MAIL")
        if (rest := self._begin_MAIL(arg)) is not None:
            await rest

    def _begin_MAIL(self, arg: str | None) -> Coroutine[Any, Any, None] | None:
        envelope = self.envelope
        if envelope.mail_from is not None:
            raise SMTPReplyError(503, "5.5.1", "Nested MAIL command")
        address, rest = plain_path(arg, "FROM:", self.local_part_limit) or self._path(arg, "FROM:", sender=True)
        envelope.submitter = None
        options, parameters = self._parameters(rest, self._settings.mail_parameters) if rest else ([], {})
        utf8 = "SMTPUTF8" in parameters
        if not (utf8 or address.isascii()):
            raise self._needs_smtputf8()
        if self.connections.buffered >= self.max_buffered > 0:
            raise SMTPReplyError(452, "4.3.1", "Out of memory, try again later")
        envelope.smtp_utf8 = utf8
        envelope.mail_parameters = parameters
        if "MAIL" in self._settings.asked:
            return self._ask_MAIL(address, options)
        envelope.mail_from = address
        if options:
            envelope.mail_options.extend(options)
        self.send_reply("250 OK")
        return None

    async def _ask_MAIL(self, address: str, options: list[str]) -> None:
        envelope = self.envelope
        accepted = False
        try:
            status = await self._call_handler_hook("MAIL", address, options)
            if status is MISSING:
                envelope.mail_from = address
                envelope.mail_options.extend(options)
                status = "250 OK"
            if (unsent := self._pushed(status)) is not None:
                await unsent
            accepted = self._code < 300
        finally:
            if not accepted:
                self._set_rset_state()
            elif envelope.mail_from is None:
                envelope.mail_from = address

    @syntax("RCPT TO:<address>", extended=" [SP <rcpt-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        await self.check_helo_needed()
        await self.check_auth_needed("RCPT")
        if (rest := self._begin_RCPT(arg)) is not None:
            await rest

    def _begin_RCPT(self, arg: str | None) -> Coroutine[Any, Any, None] | None:
        envelope = self.envelope
        if envelope.mail_from is None:
            raise SMTPReplyError(503, "5.5.1", "Need MAIL command first")
        address, rest = plain_path(arg, "TO:", self.local_part_limit) or self._path(arg, "TO:", sender=False)
        options, parameters = self._parameters(rest, self._settings.rcpt_parameters) if rest else ([], {})
        if not (envelope.smtp_utf8 or address.isascii()):
            raise self._needs_smtputf8()
        if self._accepted >= self.max_recipients:
            raise SMTPReplyError(452, "4.5.3", f"Too many recipients, {self.max_recipients} are accepted at once")
        recipient = Recipient(address, options, parameters)
        if "RCPT" in self._settings.asked:
            return self._ask_RCPT(recipient)
        envelope.rcpt_tos.append(address)
        if options:
            envelope.rcpt_options.extend(options)
        self.send_reply("250 OK")
        self._accepted += 1
        envelope.recipients.append(recipient)
        return None

    async def _ask_RCPT(self, recipient: Recipient) -> None:
        envelope = self.envelope
        known, known_options = len(envelope.rcpt_tos), len(envelope.rcpt_options)
        accepted = False
        try:
            status = await self._call_handler_hook("RCPT", recipient.address, recipient.options)
            if status is MISSING:
                envelope.rcpt_tos.append(recipient.address)
                envelope.rcpt_options.extend(recipient.options)
                status = "250 OK"
            if (unsent := self._pushed(status)) is not None:
                await unsent
            accepted = self._code < 300
        finally:
            if accepted:
                self._accepted += 1
                envelope.recipients.append(recipient)
            else:
                # A hook may append before it refuses.
                self._refused += 1
                del envelope.rcpt_tos[known:], envelope.rcpt_options[known_options:]

    def _path(self, arg: str | None, keyword: str, sender: bool) -> tuple[str, str]:
        if arg is None or arg[: len(keyword)].upper() != keyword:
            extended = " [SP <parameters>]" if self.session.extended_smtp else ""
            raise SMTPReplyError(501, "5.5.4", f"Syntax: {self._verb} {keyword}<address>{extended}")
        return parse_path(arg[len(keyword) :], null=sender, sender=sender, local_part_limit=self.local_part_limit)

    def _parameters(self, text: str, known: Mapping[str, Any]) -> tuple[list[str], dict[str, str | None]]:
        if not self.session.extended_smtp:
            raise SMTPReplyError(555, "5.5.4", f"{self._verb} has parameters only after EHLO")
        options, parameters = parse_parameters(text)
        for keyword, value in parameters.items():
            check = known.get(keyword)
            if check is None:
                raise SMTPReplyError(555, "5.5.4", f"{self._verb} parameter {keyword[:32]} is not known here")
            check(self, value)
        return options, parameters

    def _needs_smtputf8(self) -> SMTPReplyError:
        return SMTPReplyError(553, "5.6.7", "An address with other than ASCII characters needs SMTPUTF8")

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        await self.check_helo_needed()
        await self.check_auth_needed("DATA")
        reader = self._content_reader(arg)
        await self.push(GO_AHEAD)
        await self._receive(reader)

    def _begin_DATA(self, arg: str | None) -> Coroutine[Any, Any, None] | None:
        reader = self._content_reader(arg)
        self.send_reply(GO_AHEAD)
        if "DATA_STREAM" in self._settings.hooks:
            return self._receive(reader)
        self.begin_content(reader)
        return None

    def _content_reader(self, arg: str | None) -> ContentReader:
        """What reads the content, if DATA may be sent now."""
        self._no_argument(arg)
        if self.envelope.mail_from is None:
            raise SMTPReplyError(503, "5.5.1", "Need MAIL command first")
        if not self._accepted:
            self._refuse_unaddressed()
        return DotReader(
            # By position: names cost Python 3.11 half as much again.
            self.data_size_limit,
            self.line_length_limit,
            self.bare_newline,
        )

    async def _receive(self, reader: ContentReader) -> None:
        """Read the content, let a hook judge it, and answer."""
        if "DATA_STREAM" not in self._settings.hooks:
            await self.read_content(reader)
            await self.content_received(reader)
            return
        try:
            status = await self._stream_to_hook(reader)
            if (unsent := self._answer(status)) is not None:
                await unsent
            self._log_message(reader.size)
        finally:
            self._end_of_message()

    async def content_received(self, reader: ContentReader) -> None:
        try:
            if reader.error is not None or self._out_of_memory:
                status: Any = self._content_refusal(reader.error)
            else:
                content, envelope = reader.getvalue(), self.envelope
                envelope.original_content = content
                envelope.content = content.decode("utf-8", "surrogateescape") if self.decode_data else content
                # The peer's going must not cut off a hook that may have stored half of it.
                self._keep_when_gone = True
                try:
                    if self._settings.foreign_hook_calls:
                        status = await self._call_handler_hook("DATA")
                    elif type(status := self._begin_hook("DATA")) is CoroutineType:
                        status = await status
                except SMTPReplyError as error:
                    status = error.reply
                except (Exception, asyncio.CancelledError) as error:
                    status = await self._failed_verdict(error)
            if (unsent := self._answer(status)) is not None:
                await unsent
            self._log_message(reader.size)
        finally:
            self._end_of_message()

    def _end_of_message(self) -> None:
        self._keep_when_gone = False
        self.release_content()
        self._set_post_data_state()

    def _refuse_unaddressed(self) -> None:
        """Refuse a message for which no RCPT was accepted, unless a hook has put recipients into the envelope."""
        if self.envelope.rcpt_tos:
            return
        if self._refused:
            raise SMTPReplyError(554, "5.5.1", "No valid recipients")
        raise SMTPReplyError(503, "5.5.1", "Need RCPT command first")

    def _content_refusal(self, error: str | None) -> Reply | None:
        if self._out_of_memory:
            self._out_of_memory = False
            return Reply(452, "4.3.1", ("Out of memory, try again later",))
        if error is None:
            return None
        if error == "size":
            return Reply(552, "5.3.4", (f"Message is larger than the {self.data_size_limit} octets accepted here",))
        if error == "line":
            return Reply(500, "5.6.0", (f"Line longer than {self.line_length_limit} octets in the message",))
        return Reply(550, "5.6.11", ("CR or LF alone in the message: lines end with CR LF",))

    async def _failed_verdict(self, error: BaseException) -> Any:
        """The status for a failure of a hook that had the whole message."""
        if self._gone:
            raise error
        return await self.status_for(error)

    async def _stream_to_hook(self, reader: ContentReader) -> Any:
        """Let ``handle_DATA_STREAM`` read while the client sends; its status, or why the message is refused."""
        stream = ContentStream(self.stream_drained, lambda: hook.cancel())
        hook = Deferred.fromCoroutine(self._read_stream(stream))

        def done(result: Any) -> Any:
            # Whatever it has not read is read past, and does not count.
            reader.discard()
            stream.close()
            return result

        hook.addBoth(done)
        try:
            await self.read_content(reader, stream)
        except BaseException:
            stream.give_up(StreamInterrupted("the client went away before the end of the message"))
            hook.addErrback(self._hook_interrupted)
            raise
        stream.finish()
        # From here on, as with handle_DATA.
        self._keep_when_gone = True
        try:
            status = await hook
        except (Exception, asyncio.CancelledError) as error:
            status = await self._failed_verdict(error)
        # A hook can't answer for a message of which it has not heard the end.
        if isinstance(stream.error, StreamInterrupted):
            return TOOK_TOO_LONG
        return self._content_refusal(reader.error) or status

    async def _read_stream(self, stream: ContentStream) -> Any:
        status = await self._call_handler_hook("DATA_STREAM", stream)
        if hasattr(status, "__aiter__"):
            # It reads the stream between its statuses, so it has to run while the content comes.
            return await settle(self._gathered(status), self.loop)
        return status

    async def _gathered(self, status: Any) -> AsyncIterator[Reply]:
        """What an iterator yields, ended as it ended."""
        found: list[Reply] = []
        ending: BaseException | None = None
        try:
            async for reply in self._statuses(status):
                found.append(reply)
        except (Exception, asyncio.CancelledError) as error:
            if not found:
                raise
            ending = error
        return _replay(found, ending)

    def content_error(self, error: str) -> Exception:
        refusal = self._content_refusal(error)
        assert refusal is not None
        return SMTPReplyError(refusal.code, refusal.enhanced, refusal.lines[0])

    def _hook_interrupted(self, failure: Failure) -> None:
        if failure.check(StreamInterrupted, *CANCELLED) is None:
            log.failure("{session.id}: handle_DATA_STREAM failed", failure, session=self.session)

    def _answer(self, status: Any) -> Coroutine[Any, Any, None] | None:
        """Send what is to be said of the message.

        SMTP has one reply.  Where a hook's statuses differ by recipient, neither yes nor no would be true: the client
        shall try again later.

        :param status: the hook's, or ``MISSING``.
        :returns: what is left to be awaited, or ``None``.
        """
        if status is MISSING:
            status = "250 OK"
        elif type(status) is not str and (isinstance(status, (list, tuple)) or hasattr(status, "__aiter__")):
            return self._answer_for_all(status)
        try:
            unsent = self._pushed(status)
        except BadStatus as error:
            return self._answer_instead(error)
        self._message_judged()
        return unsent

    async def _answer_for_all(self, status: Any) -> None:
        try:
            reply: Any = await settle(self._one_for_all(status), self.loop)
        except (Exception, asyncio.CancelledError) as error:
            reply = await self.status_for(error)
        await self.push(reply)
        self._message_judged()

    async def _answer_instead(self, error: BadStatus) -> None:
        await self.push(await self.status_for(error))
        self._message_judged()

    def _message_judged(self) -> None:
        """The client has heard what becomes of its message, or of one recipient's."""
        self.connections.counts.judged(self._code)
        if self._errors and self._code < 300:
            self.forgive()

    async def _one_for_all(self, status: Any) -> Reply:
        replies = [reply async for reply in self._statuses(status)]
        if len({reply.code // 100 for reply in replies}) == 1:
            return replies[0]
        log.warn("{session}: the verdict differs by recipient: 451", session=self.session.id)
        return Reply(451, "4.3.0", ("Accepted for some recipients only, try again later",))

    async def _statuses(self, status: Any) -> AsyncIterator[Reply]:
        """One status per accepted recipient, as a hook gives them for the message.

        :raises BadStatus: if there are more or fewer.
        """
        due = self._accepted
        if isinstance(status, (list, tuple)):
            if len(status) != due:
                raise BadStatus(f"the hook gave {len(status)} statuses for {due} recipients")
            for one in status:
                yield Reply.parse(one)
            return
        try:
            async for one in status:
                reply = Reply.parse(one)
                if not due:
                    raise BadStatus(f"the hook gave more statuses than the {self._accepted} recipients")
                due -= 1
                # Each recipient has the time a hook has.
                self._pending_since = self._now()
                yield reply
        finally:
            # Left alone after a bad status, it would be suspended for ever, in a `with` perhaps.
            if hasattr(status, "aclose"):
                await status.aclose()
        if due:
            raise BadStatus(f"the hook gave no status for the last {due} of {self._accepted} recipients")

    def _log_message(self, size: int) -> None:
        self.connections.counts.octets += size
        # The event is made here, since log.info() spends more on looking up its own level than a command takes.
        event: dict[str, Any] = MESSAGE_EVENT.copy()
        event["log_time"] = time.time()
        # Values, not the envelope: whoever keeps the event must not keep the message.
        event["session"] = self.session.id
        event["peer"] = self.session.peer
        event["sender"] = self.envelope.mail_from
        event["recipients"] = self._accepted
        event["size"] = size
        event["code"] = self._code
        publish(event)


async def _replay(replies: list[Reply], ending: BaseException | None) -> AsyncIterator[Reply]:
    for reply in replies:
        yield reply
    if ending is not None:
        raise ending
