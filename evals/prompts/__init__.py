"""Prompt order: the same items with the question before the text and after it (paper v2, App. L)."""
