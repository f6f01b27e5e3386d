"""Models that stay: declared in a folder, kept in a store, restored at a start, taken back where a new one fails (M, W-6, W-7)."""
