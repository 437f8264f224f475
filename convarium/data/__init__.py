"""Pictures and their labels: found, decoded, checked, split, augmented and batched; knows no model."""
