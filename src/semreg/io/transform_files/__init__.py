"""Transform files of ITK: read as numbers and checked before ITK sees them, since its own readers trust a file."""
