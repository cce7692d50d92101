"""A client for the next host: connections, parameters."""
