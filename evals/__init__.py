"""Quality: what a model can do, measured."""
