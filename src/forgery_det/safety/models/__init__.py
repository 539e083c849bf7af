"""Models under test, behind one protocol: `understand(images, text) -> text`, `generate(text, images) -> image`."""
