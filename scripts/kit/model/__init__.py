"""The base model as far as it is known without torch: its files, its shape, its tokenizer and template."""
