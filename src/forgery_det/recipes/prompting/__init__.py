"""Prompt sets of a recipe: where prompts come from, how longer levels are written, and what is refused."""
