"""How exactly-once is kept on Kafka: clients, topics, membership, transactions, notes of attempts."""
