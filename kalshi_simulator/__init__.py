"""A second Kalshi: a made-up exchange that speaks the REST and WebSocket protocol of the real one."""
