"""What is said on topics and by which names: events, envelopes, dead letters, and the protocol of a broker session."""
