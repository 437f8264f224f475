"""What a network costs: shapes and parameters of every part, found without weights or memory."""
