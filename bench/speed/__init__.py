"""The experiments that time something."""
