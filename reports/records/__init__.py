"""What a result is and where it lies."""
