"""Measures FlowKit against the bare Kafka and MongoDB beneath it."""
