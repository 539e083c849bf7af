"""Manifest, types, registry, errors, image decoding and atomic artefacts: what every other package stands on."""
