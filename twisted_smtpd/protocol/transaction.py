"""The mail transaction: MAIL, RCPT, DATA (RFC 5321 section 3.3).

There is one way through each command.  It is a plain method that returns what is left to be awaited: ``DONE`` where
nothing is, which saves a coroutine for each command of most messages; a coroutine where a hook has to be asked, or the
client does not read.  Whether a command may come at all has been decided by the table of states.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_smtpd.logs.events import HOOK_FAILED
from twisted_smtpd.protocol.body import LARGE
from twisted_smtpd.protocol.counting import PUT_OFF, refused
from twisted_smtpd.protocol.dispatch import Dispatch
from twisted_smtpd.protocol.hooks import TOOK_TOO_LONG, Status
from twisted_smtpd.protocol.reporting import report_message
from twisted_smtpd.protocol.settings import ParameterCheck, ignore
from twisted_smtpd.protocol.verdict import each_status, gathered, is_many, one_for_all
from twisted_smtpd.runtime.awaiting import CANCELLED, DONE, MISSING, settle
from twisted_smtpd.session import NULL_SENDER, Recipient
from twisted_smtpd.stream import ContentStream, StreamEnd, StreamInterrupted
from twisted_smtpd.wire.addresses import parse_path, plain_path
from twisted_smtpd.wire.commands import parse_parameters
from twisted_smtpd.wire.content import ContentReader, DotReader
from twisted_smtpd.wire.replies import BadStatus, Reply, SMTPReplyError

__all__ = ["Transaction"]

# Parameters that clients send after HELO, too.  They promise nothing that such a client would have to be told of.
AFTER_HELO = frozenset({"SIZE", "BODY"})

# Recipients beyond max_recipients that a client may name before they count as errors.
MAX_SURPLUS = 1000

GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"


class Transaction(Dispatch):
    """The commands of a transaction; :class:`~twisted_smtpd.smtp.SMTP` lists them."""

    __slots__ = ()

    # -- MAIL ----------------------------------------------------------------------------------------------------------

    def _mail(self, arg: str | None) -> Awaitable[None]:
        address, rest = plain_path(arg, "FROM:", self.local_part_limit) or self._path(arg, "FROM:", sender=True)
        envelope = self.envelope
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
            return self._mail_after_hook(address, options)
        envelope.mail_from = address
        if options:
            envelope.mail_options.extend(options)
        self._sender_accepted()
        return self.push("250 OK")

    async def _mail_after_hook(self, address: str, options: list[str]) -> None:
        envelope = self.envelope
        accepted = False
        try:
            status = await self._call_handler_hook("MAIL", address, options)
            if status is MISSING:
                envelope.mail_from = address
                envelope.mail_options.extend(options)
                status = "250 OK"
            await self.push(status)
            accepted = self._code < 300
            if not accepted:
                refused(self)
        finally:
            if not accepted:
                self._set_rset_state()
            elif envelope.mail_from is None:
                envelope.mail_from = address

    # -- RCPT ----------------------------------------------------------------------------------------------------------

    def _rcpt(self, arg: str | None) -> Awaitable[None]:
        address, rest = plain_path(arg, "TO:", self.local_part_limit) or self._path(arg, "TO:", sender=False)
        options, parameters = self._parameters(rest, self._settings.rcpt_parameters) if rest else ([], {})
        envelope = self.envelope
        if not (envelope.smtp_utf8 or address.isascii()):
            raise self._needs_smtputf8()
        if self._accepted >= self.max_recipients:
            return self._one_too_many()
        recipient = Recipient(address, options, parameters)
        if "RCPT" in self._settings.asked:
            return self._rcpt_after_hook(recipient)
        envelope.rcpt_tos.append(address)
        if options:
            envelope.rcpt_options.extend(options)
        self._recipient_accepted()
        envelope.recipients.append(recipient)
        return self.push("250 OK")

    async def _rcpt_after_hook(self, recipient: Recipient) -> None:
        envelope = self.envelope
        known, known_options = len(envelope.rcpt_tos), len(envelope.rcpt_options)
        accepted = False
        try:
            if self._refusals >= self.max_refusals > 0:
                status: Any = PUT_OFF
            else:
                status = await self._call_handler_hook("RCPT", recipient.address, recipient.options)
            if status is MISSING:
                envelope.rcpt_tos.append(recipient.address)
                envelope.rcpt_options.extend(recipient.options)
                status = "250 OK"
            await self.push(status)
            accepted = self._code < 300
            if not accepted:
                refused(self)
        finally:
            if accepted:
                self._recipient_accepted()
                envelope.recipients.append(recipient)
            else:
                # A hook may append before it refuses.
                self._recipient_refused()
                del envelope.rcpt_tos[known:], envelope.rcpt_options[known_options:]

    def _one_too_many(self) -> Awaitable[None]:
        # RFC 5321 section 4.5.3.1.10: the client sends the others first, and these with the next message.  So it is no
        # error, or the connection would end before the message that was accepted.
        refusal = Reply(452, "4.5.3", (f"Too many recipients, {self.max_recipients} are accepted at once",))
        self._surplus += 1
        if self._surplus > MAX_SURPLUS:
            raise SMTPReplyError(refusal.code, refusal.enhanced, refusal.lines[0])
        return self.push(refusal)

    def _path(self, arg: str | None, keyword: str, sender: bool) -> tuple[str, str]:
        if arg is None or arg[: len(keyword)].upper() != keyword:
            extended = " [SP <parameters>]" if self.session.extended_smtp else ""
            raise SMTPReplyError(501, "5.5.4", f"Syntax: {self._verb} {keyword}<address>{extended}")
        address, rest = parse_path(
            arg[len(keyword) :],
            null=sender,
            sender=sender,
            local_part_limit=self.local_part_limit,
            default_domain=self.default_domain or "",
        )
        return address or NULL_SENDER, rest

    def _parameters(self, text: str, known: Mapping[str, ParameterCheck]) -> tuple[list[str], dict[str, str | None]]:
        options, parameters = parse_parameters(text)
        if not self.session.extended_smtp and not parameters.keys() <= AFTER_HELO:
            raise SMTPReplyError(555, "5.5.4", f"{self._verb} has such parameters only after EHLO")
        left_out = False
        for keyword, value in parameters.items():
            check = known.get(keyword)
            if check is None:
                raise SMTPReplyError(555, "5.5.4", f"{self._verb} parameter {keyword[:32]} is not known here")
            if check is ignore:
                left_out = True
            else:
                check(self, value)
        for names in self._settings.exclusive:
            if names <= parameters.keys():
                raise SMTPReplyError(501, "5.5.4", f"{' and '.join(sorted(names))} exclude each other")
        if left_out:
            options = [one for one in options if known[one.partition("=")[0].upper()] is not ignore]
            parameters = {keyword: value for keyword, value in parameters.items() if known[keyword] is not ignore}
        return options, parameters

    def _needs_smtputf8(self) -> SMTPReplyError:
        return SMTPReplyError(553, "5.6.7", "An address with other than ASCII characters needs SMTPUTF8")

    # -- DATA ----------------------------------------------------------------------------------------------------------

    def _data(self, arg: str | None) -> Awaitable[None]:
        if arg is not None:
            self._no_argument(arg)
        if self.envelope.mail_parameters and self.envelope.binary:
            # RFC 3030 section 3: DATA can't carry it.
            raise SMTPReplyError(503, "5.5.1", "BODY=BINARYMIME needs BDAT")
        # By position: names cost Python 3.11 half as much again.
        reader = DotReader(
            self.data_size_limit,
            self.line_length_limit,
            self.bare_newline,
            self.header_size_limit,
            self.header_line_limit,
        )
        rest = self.push(GO_AHEAD)
        # The message's own event has the reply.
        self._line = None
        if "DATA_STREAM" in self._settings.hooks:
            return self._stream(rest, reader)
        if rest is not DONE:
            return self._receive(rest, reader)
        self._body.begin(reader, self._received)
        return self._body

    async def _receive(self, rest: Awaitable[None], reader: ContentReader) -> None:
        await rest
        await self._body.read(reader)
        self._runner.keep(True)
        try:
            await self._received(reader)
        finally:
            self._runner.keep(False)

    async def _received(self, reader: ContentReader) -> None:
        """The message is there: let a hook judge it, and answer."""
        try:
            if reader.error is not None or self._body.out_of_memory:
                status: Any = self._content_refusal(reader.error)
            else:
                content, envelope = reader.getvalue(), self.envelope
                if reader.size > LARGE:
                    self._body.count_copies()
                envelope.original_content = content
                envelope.content = content.decode("utf-8", "surrogateescape") if self.decode_data else content
                try:
                    status = await self._call_handler_hook("DATA")
                    if status is MISSING and (hook := self._settings.deprecated_data_hook) is not None:
                        status = await settle(hook(self, self.session, envelope), self.loop)
                except (Exception, asyncio.CancelledError) as error:
                    status = await self._failed_verdict(error)
            # A message that was taken leaves nothing to be awaited.
            if (rest := self._answer(status)) is not DONE:
                await rest
            report_message(self, reader.size)
        finally:
            self._end_of_message()

    def _end_of_message(self) -> None:
        self._body.release()
        self._set_post_data_state()
        self._line = b""
        if self._refusals and self._refusals >= self.max_refusals > 0 and not self._ending:
            self.send_reply("421 4.7.0 Too many refusals, closing the connection", verb="?")

    def _content_refusal(self, error: str | None) -> Reply | None:
        if self._body.take_out_of_memory():
            return Reply(452, "4.3.1", ("Out of memory, try again later",))
        if error is None:
            return None
        if error == "size":
            return Reply(552, "5.3.4", (f"Message is larger than the {self.data_size_limit} octets accepted here",))
        if error == "header":
            return Reply(552, "5.3.4", ("The header has more octets or lines than are accepted here",))
        if error == "line":
            return Reply(500, "5.6.0", (f"Line longer than {self.line_length_limit} octets in the message",))
        return Reply(550, "5.6.11", ("CR or LF alone in the message: lines end with CR LF",))

    async def _failed_verdict(self, error: BaseException) -> Any:
        """The status for a failure of a hook that had the whole message."""
        if isinstance(error, SMTPReplyError):
            return error.reply
        if self._gone:
            raise error
        return await self.status_for(error)

    # -- a hook that reads the message while it comes ------------------------------------------------------------------

    async def _stream(self, rest: Awaitable[None], reader: ContentReader) -> None:
        await rest
        try:
            await self._answer(await self._stream_to_hook(reader))
            report_message(self, reader.size)
        finally:
            self._runner.keep(False)
            self._end_of_message()

    async def _stream_to_hook(self, reader: ContentReader) -> Any:
        """Let ``handle_DATA_STREAM`` read while the client sends.

        :returns: its status, or why the message is refused.
        """
        stream, hook = self._open_stream(reader)
        try:
            await self._body.read_into(reader, stream, self._content_error)
        except BaseException:
            stream.give_up(StreamInterrupted(StreamEnd.LOST))
            hook.addErrback(self._hook_interrupted)
            raise
        return await self._stream_verdict(reader, stream, hook)

    def _open_stream(self, reader: ContentReader, size: int | None = None) -> tuple[ContentStream, Deferred[Any]]:
        """Begin to let a hook read.

        :param size: octets of the message, where that is known.
        :returns: its stream, and what the hook comes to.
        """
        if size is None and (declared := self.envelope.mail_parameters.get("SIZE")):
            size = int(declared)
        stream = ContentStream(self._body.stream_drained, lambda: hook.cancel(), size)
        hook = Deferred.fromCoroutine(self._read_stream(stream))

        def done(result: Any) -> Any:
            # The rest of the message is read and thrown away; no limit holds for it.
            reader.discard()
            stream.close()
            return result

        hook.addBoth(done)
        return stream, hook

    async def _stream_verdict(self, reader: ContentReader, stream: ContentStream, hook: Deferred[Any]) -> Any:
        """The message is whole: wait for the hook that has read it.

        :returns: its status, or why the message is refused.
        """
        stream.finish()
        # From here on, as with handle_DATA.
        self._runner.keep(True)
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
            return await settle(gathered(self._statuses(status)), self.loop)
        return status

    def _content_error(self, error: str) -> Exception:
        """The exception that a hook which reads the message gets for an error of the reader."""
        refusal = self._content_refusal(error)
        assert refusal is not None
        return SMTPReplyError(refusal.code, refusal.enhanced, refusal.lines[0])

    def _hook_interrupted(self, failure: Failure) -> None:
        if failure.check(StreamInterrupted, SMTPReplyError, *CANCELLED) is None:
            HOOK_FAILED.tell_failure(self, failure, what="handle_DATA_STREAM")

    # -- the answer ----------------------------------------------------------------------------------------------------

    def _answer(self, status: Any) -> Awaitable[None]:
        """Send the reply to the message.

        :param status: the hook's, or ``MISSING``.
        :returns: what is left to be awaited.
        """
        if status is MISSING:
            status = "250 OK"
        elif type(status) is not str and is_many(status):
            return self._answer_for_all(status)
        try:
            rest = self.push(status)
        except BadStatus as error:
            return self._answer_instead(error)
        if rest is not DONE:
            return self._answer_later(rest)
        self._message_judged()
        return rest

    async def _answer_later(self, rest: Awaitable[None]) -> None:
        # An overridden push() may not have begun: its reply is known when it has ended.
        try:
            await rest
        except BadStatus as error:
            await self.push(await self.status_for(error))
        self._message_judged()

    async def _answer_for_all(self, status: Any) -> None:
        await self.push(await self._one_status(status))
        self._message_judged()

    async def _answer_instead(self, error: BadStatus) -> None:
        await self.push(await self.status_for(error))
        self._message_judged()

    async def _one_status(self, status: Any) -> Status:
        try:
            return await settle(one_for_all(self._statuses(status), self), self.loop)  # type: ignore[no-any-return]
        except (Exception, asyncio.CancelledError) as error:
            return await self.status_for(error)  # type: ignore[no-any-return]

    def _statuses(self, status: Any) -> AsyncIterator[Reply]:
        return each_status(status, self._accepted, self._runner.restart_clock)

    def _message_judged(self) -> None:
        """Count the reply to a message, or to one of its recipients."""
        counts, code = self.connections.counts, self._code
        if code < 300:
            # What judged() does, without the call.
            counts.accepted += 1
            if self._errors or self._refusals or self._idle_commands:
                self.forgive()
        else:
            counts.judged(code)
            self._refusals += 1
