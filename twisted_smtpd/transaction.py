"""The mail transaction: MAIL, RCPT, DATA (RFC 5321 section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from twisted_smtpd.hooks import MISSING
from twisted_smtpd.server import Server, Status, syntax
from twisted_smtpd.session import Recipient
from twisted_smtpd.wire.addresses import needs_smtputf8, parse_path
from twisted_smtpd.wire.commands import parse_parameters
from twisted_smtpd.wire.content import DotReader
from twisted_smtpd.wire.replies import BadStatus, Reply, SMTPReplyError

__all__ = ["Transaction"]

log = Logger()


class Transaction(Server):
    """The commands of a transaction."""

    @syntax("MAIL FROM:<address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        await self.check_helo_needed()
        if self.envelope.mail_from is not None:
            raise SMTPReplyError(503, "5.5.1", "Nested MAIL command")
        address, rest = self._path(arg, "FROM:", sender=True)
        options, parameters = self._parameters(rest, self._settings.mail_parameters)
        utf8 = "SMTPUTF8" in parameters
        self._check_ascii(address, utf8)
        if self.traffic.buffered >= self.max_buffered > 0:
            raise SMTPReplyError(452, "4.3.1", "Out of memory, try again later")
        envelope = self.envelope
        envelope.smtp_utf8 = utf8
        envelope.mail_parameters = parameters
        accepted = False
        try:
            status = await self._call_handler_hook("MAIL", address, options)
            if status is MISSING:
                envelope.mail_from = address
                envelope.mail_options.extend(options)
                status = "250 OK"
            await self.push(status)
            accepted = self._code < 300
        finally:
            if not accepted:
                self._set_rset_state()
            elif envelope.mail_from is None:
                envelope.mail_from = address

    @syntax("RCPT TO:<address>", extended=" [SP <rcpt-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        await self.check_helo_needed()
        envelope = self.envelope
        if envelope.mail_from is None:
            raise SMTPReplyError(503, "5.5.1", "Need MAIL command first")
        address, rest = self._path(arg, "TO:", sender=False)
        options, parameters = self._parameters(rest, self._settings.rcpt_parameters)
        self._check_ascii(address, envelope.smtp_utf8)
        if self._accepted >= self.max_recipients:
            raise SMTPReplyError(452, "4.5.3", f"Too many recipients, {self.max_recipients} are accepted at once")
        known, known_options = len(envelope.rcpt_tos), len(envelope.rcpt_options)
        accepted = False
        try:
            status = await self._call_handler_hook("RCPT", address, options)
            if status is MISSING:
                envelope.rcpt_tos.append(address)
                envelope.rcpt_options.extend(options)
                status = "250 OK"
            await self.push(status)
            accepted = self._code < 300
        finally:
            if accepted:
                self._accepted += 1
                envelope.recipients.append(Recipient(address, options, parameters))
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
        if not text:
            return [], {}
        if not self.session.extended_smtp:
            raise SMTPReplyError(555, "5.5.4", f"{self._verb} has parameters only after EHLO")
        options, parameters = parse_parameters(text)
        for keyword, value in parameters.items():
            check = known.get(keyword)
            if check is None:
                raise SMTPReplyError(555, "5.5.4", f"{self._verb} parameter {keyword[:32]} is not known here")
            check(self, value)
        return options, parameters

    def _check_ascii(self, address: str, utf8: bool) -> None:
        if needs_smtputf8(address) and not utf8:
            raise SMTPReplyError(553, "5.6.7", "An address with other than ASCII characters needs SMTPUTF8")

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        await self.check_helo_needed()
        self._no_argument(arg)
        if self.envelope.mail_from is None:
            raise SMTPReplyError(503, "5.5.1", "Need MAIL command first")
        if not (self._accepted or self.envelope.rcpt_tos):
            if self._refused:
                raise SMTPReplyError(554, "5.5.1", "No valid recipients")
            raise SMTPReplyError(503, "5.5.1", "Need RCPT command first")
        reader = DotReader(
            size_limit=self.data_size_limit,
            line_length_limit=self.line_length_limit,
            bare_newline=self.bare_newline,
        )
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        try:
            await self.read_content(reader)
            await self.push(self._content_refusal(reader.error) or await self._deliver(reader.getvalue()))
        finally:
            self._keep_when_gone = False
            self.release_content()
            self._set_post_data_state()

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

    async def _deliver(self, content: bytes) -> Status:
        """Hand the message to the handler."""
        envelope = self.envelope
        envelope.original_content = content
        envelope.content = content.decode("utf-8", "surrogateescape") if self.decode_data else content
        # The peer's going must not cut off a hook that may have stored half of it.
        self._keep_when_gone = True
        status = await self._call_handler_hook("DATA")
        reply = "250 OK" if status is MISSING else self._verdict(status)
        code = Reply.parse(reply).code
        if code < 300:
            self.forgive()
        log.info(
            "{session.id} {session.peer} from=<{envelope.mail_from}> recipients={count} size={size}: {code}",
            session=self.session,
            envelope=envelope,
            count=self._accepted,
            size=len(content),
            code=code,
        )
        return reply

    def _verdict(self, status: Any) -> Status:
        """One reply of what may be one per recipient.

        Where they differ, neither yes nor no would be true: the client shall try again later.
        """
        if not isinstance(status, (list, tuple)):
            return status  # type: ignore[no-any-return]
        replies = [Reply.parse(one) for one in status]
        if len(replies) != self._accepted:
            raise BadStatus(f"handle_DATA returned {len(replies)} statuses for {self._accepted} recipients")
        if len({reply.code // 100 for reply in replies}) == 1:
            return replies[0]
        log.warn("{session.id}: handle_DATA's verdict differs by recipient: 451", session=self.session)
        return Reply(451, "4.3.0", ("Accepted for some recipients only, try again later",))
