"""The built-in stages: in by the same door as anyone's, entry points and streamapp.plugin."""
