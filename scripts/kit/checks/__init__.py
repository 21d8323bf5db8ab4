"""Everything that is checked before a run: cross-field rules, files, data, memory, time."""
