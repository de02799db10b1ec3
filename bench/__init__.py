"""Speed and memory, and the rig that runs every experiment."""
