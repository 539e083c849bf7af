"""Judges: what says of an answer whether it is safe; each records its version and its raw answer."""
