"""Models that arrive: signed documents and packages from a folder, a server or a bucket, by The Update Framework (F)."""
