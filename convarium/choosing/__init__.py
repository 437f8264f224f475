"""Which network to take: candidates, measured here, compared, ranked on the user's own pictures."""
