"""Training: recipes, data streams and the loop."""
