"""Pure arithmetic over tables: queries in, queries out."""
