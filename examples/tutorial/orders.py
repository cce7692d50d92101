from email import message_from_bytes


class Orders:
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if not address.endswith("@example.com"):
            return "550 5.7.1 Mail for example.com only"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = message_from_bytes(envelope.content)
        order = message["Subject"].rpartition(" ")[2]
        print(f"Order {order} for {', '.join(envelope.rcpt_tos)}")
        return "250 OK"
