"""One training run: planned, watched, receipted."""
