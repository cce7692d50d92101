"""What a server can be told: the options, and what is made of them once."""
