"""Know a run before it starts: its memory term by term, its tokens and time, and the settings that would be faster.

Pure arithmetic over a configuration, a model's shape and the lengths of the rows; nothing here but ``measure`` imports
torch. What the formulas rest on, and how they are held to what the libraries do: docs/MEMORY.md.
"""
