"""Safety: unsafe, safe and corrupted rates of image generators and unified models, by pathway and hop."""
