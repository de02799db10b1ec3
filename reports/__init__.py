"""What a result is, where it lies, how it is shown. Nothing in here needs torch."""
