"""Bytes <-> messages: topics, headers, schema versions, and how facts are written down. Adapters carry, nobody else
parses."""
