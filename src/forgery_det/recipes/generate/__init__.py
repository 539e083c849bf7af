"""Generating sources: prompts and images become jobs, jobs become images, and no job is done or paid for twice."""
