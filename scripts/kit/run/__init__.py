"""One training run: checked before, planned, watched, receipted."""
