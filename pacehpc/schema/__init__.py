"""What a section of keys may hold: types of values, and messages about what does not fit them."""
