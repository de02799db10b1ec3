"""The published numbers, and their sources."""
