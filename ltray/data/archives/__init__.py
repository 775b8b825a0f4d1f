"""The source's own files -> examples: one small module per source, opened by `open_source`."""
