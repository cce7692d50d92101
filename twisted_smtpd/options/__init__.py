"""The options of a server: the table of all of them, and what is made of it once."""
