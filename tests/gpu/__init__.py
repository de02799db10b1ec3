"""What only a GPU can show, as one queue in the order of worth: `make gpu`, or `python -m tests.gpu`.

Nothing is installed and nothing is downloaded. Each record is written as it ends, a step that fails or hangs is ended
at its bound and stops no other, and the same command goes on where the last call stopped.
"""
