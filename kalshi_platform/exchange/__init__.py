"""The exchange's protocol: signing, messages, REST and the stream. Knows nothing of ours."""
