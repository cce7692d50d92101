"""One connection: its states, its commands, and what they wait for."""
