"""The Flow Trace Monitor: what attempts say and what became of them, written down and asked about."""
