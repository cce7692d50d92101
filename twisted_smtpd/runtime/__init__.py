"""Between Twisted and the protocol: sockets, timers, reactors, and what all connections of a server share."""
