"""Handlers as classes: the contract, and those that come with FlowKit."""
