"""What several tests share: transports, clients, handlers, certificates."""
