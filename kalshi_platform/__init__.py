"""kalshi_platform: records the exchange Kalshi, proves the record complete, and keeps it as tables."""
