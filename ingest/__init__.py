"""From what a source delivers to rows in the store: decode, reduce, write."""
