"""A fact in a long text, asked for."""
