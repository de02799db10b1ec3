"""What measures: time, memory, contenders in turn, and whether something else took the machine."""
