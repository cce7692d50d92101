// Reads what `twisted-smtpd -c amqp` has put into RabbitMQ: npm install amqplib; node consume_amqp.mjs amqp://localhost
import amqp from 'amqplib';

const connection = await amqp.connect(process.argv[2] ?? 'amqp://localhost');
const channel = await connection.createChannel();
await channel.prefetch(20);
await channel.consume('mail', (delivery) => {
  const end = delivery.content.indexOf(0x0a);
  const envelope = JSON.parse(delivery.content.subarray(0, end));
  const message = delivery.content.subarray(end + 1);
  if (envelope.version !== 1) throw new Error(`version ${envelope.version}`);
  const recipients = envelope.recipients.map((one) => one.address).join(', ');
  console.log(`${envelope.id}: ${envelope.sender} wrote ${message.length} octets to ${recipients}`);
  // Not before the message is stored: without it, the broker hands the message to another consumer.
  channel.ack(delivery);
});
