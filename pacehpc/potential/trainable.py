def trainable_mask(): pass
