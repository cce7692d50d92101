import os
import smtplib
from email.message import EmailMessage


def confirm(order, customer):
    message = EmailMessage()
    message["From"] = "shop@example.com"
    message["To"] = customer
    message["Subject"] = f"Your order {order}"
    message.set_content(f"Thank you for order {order}.\n")
    with smtplib.SMTP(os.environ.get("SMTP_HOST", "127.0.0.1"), int(os.environ.get("SMTP_PORT", 8025))) as client:
        client.send_message(message)


if __name__ == "__main__":
    confirm(4711, "bart@example.com")
