"""The configuration: read, held against the one schema, resolved with the origin of each value."""
