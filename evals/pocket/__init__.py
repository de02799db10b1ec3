"""The embedded world: text, tasks, a tokenizer and trained models that need no download."""
