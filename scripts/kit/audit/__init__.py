"""What there is to know about data before training on it: lengths, packing, duplicates, leakage, secrets."""
