"""Training on text, and loss against context."""
