"""Takes mail for example.com and refuses all other.  Run it here with: twisted-smtpd -c ten_lines.Handler"""


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if not address.endswith("@example.com"):
            return "550 5.7.1 Mail for example.com only"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        print(f"{envelope.mail_from} wrote {len(envelope.content)} bytes to {envelope.rcpt_tos}")
        return "250 Message taken"
