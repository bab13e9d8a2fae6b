"""The stores: where jobs are kept. Each module holds one, and imports what it needs only itself."""
