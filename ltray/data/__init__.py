"""From a source's own files to batches on a device."""
