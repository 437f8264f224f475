"""The training room: one loop, tasks, recipes, optimisers, and state that is never lost."""
