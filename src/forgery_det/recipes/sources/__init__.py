"""Where images come from: one module a kind, each a line in `registry`."""
