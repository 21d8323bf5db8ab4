"""Raw rows become training data: read, checked, deduplicated, split, and accounted for to the last row."""
