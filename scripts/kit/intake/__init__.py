"""Raw rows become data to train on: read, checked, made unique, split, and accounted for to the last row."""
