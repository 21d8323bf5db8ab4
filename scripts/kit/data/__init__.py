"""The data: rows as conversations, conversations as token ids and labels."""
