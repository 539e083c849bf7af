"""Protocols: questions asked of one table of predictions, each a function declared in YAML."""
