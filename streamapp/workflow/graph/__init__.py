"""A workflow's file: what it declares, read with places, checked and drawn."""
