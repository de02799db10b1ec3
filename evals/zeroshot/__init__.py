"""Zero-shot tasks: lm-eval's definitions and metrics over this suite's models, each context computed once."""
