"""Small architectures, one of each kind that people export."""
