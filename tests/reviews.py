"""A few texts with what texts have: abbreviations, quotes, lists, shouting, nothing."""

REVIEWS = [
    "This is a critical document with high priority content.",
    "I don't think so! Do you? Well... maybe. It's the director's best work, isn't it?",
    "VERY LOUD and VERY SMART; uber handsome!!! But the plot was not good, nor was the acting.",
    "Dr. Smith went to Washington D.C. yesterday. He said 'hello', and left at 5 p.m.",
    (
        "An electroencephalographically determined, multidimensional, state-of-the-art assessment of"
        " interdisciplinary communication is unquestionably difficult to comprehend immediately."
    ),
    "One. Two words. Three little words. And now a sentence that is rather longer than they were!",
    "A list:\n- apples and pears\n- oranges\n\nThe end of it is near, the family said happily.",
    "Naïve café visitors: 3.14 is not 42, e-mail me at x@example.com - or don't.",
    "don't won't 'tis rock'n'roll dogs' 'quoted words' o'clock",
    "word",
    "...",
    " \t\n",
    "",
]
