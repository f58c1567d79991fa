"""A second Kalshi: a made-up exchange that speaks the protocol of the real one."""
