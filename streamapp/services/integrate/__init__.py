"""Data integration: records of many sources, matched, merged and accounted for."""
