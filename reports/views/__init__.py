"""The sections of the page, one file an experiment."""
