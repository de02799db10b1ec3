"""Training: how (recipe), the one loop, what a later run goes on from (resume), and where that lies (work)."""
