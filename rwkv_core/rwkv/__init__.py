"""RWKV: one model, a module a version."""
