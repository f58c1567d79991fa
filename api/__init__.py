"""The customers' REST API: parses, reads with a role that cannot write, answers."""
