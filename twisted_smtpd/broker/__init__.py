"""A queue on other machines: front ends put messages into RabbitMQ, consumers take them out and deliver them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_smtpd.on_demand import on_demand

if TYPE_CHECKING:
    from twisted_smtpd.broker.consumer import Consumer
    from twisted_smtpd.broker.handler import AMQP
    from twisted_smtpd.broker.queue import AMQPQueue

__all__ = ["AMQP", "AMQPQueue", "Consumer"]

__getattr__ = on_demand(__name__, {"AMQP": "handler", "AMQPQueue": "queue", "Consumer": "consumer"})
