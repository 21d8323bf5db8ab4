"""The audit of data before training: lengths, packing, duplicates, leakage, secrets."""
