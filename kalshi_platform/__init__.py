"""kalshi_platform: records the exchange Kalshi, proves the record complete, keeps it in tables."""
