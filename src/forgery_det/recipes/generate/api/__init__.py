"""Generators behind an API: one client for retries, limits and money, and a thin class for each protocol."""
