"""The data: rows as conversations, conversations as text, token ids and labels."""
