"""The log: its events, the forms in which they are written, and where they go."""
