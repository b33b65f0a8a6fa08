"""Text: counts, readability, sentiment, keywords, language and similarity of documents."""
