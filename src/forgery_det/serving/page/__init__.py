"""The page at `/`: static files, the heat map over a picture, and what a file says about its own origin."""
