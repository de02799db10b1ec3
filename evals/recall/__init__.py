"""Recall and state: what a compressed state forgets and an addressable cache does not, trained from scratch."""
