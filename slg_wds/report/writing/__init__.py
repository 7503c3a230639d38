"""Writes the page.

    document.py       the page of sets of labels
    template.py       a template filled, with the security policy of all pages
    texts.py          its paragraphs; recipe.py says how a set was made
    tables.py         its tables
    captions.py       its figures with their captions
    gallery.py        images to show, and their crops
    thumbnails.py     their pictures; view_pictures.py has pictures of crops as the teacher saw them
    names.py          names cut to what fits; numbers.py has numbers

Enters: what was measured and drawn. Leaves: HTML that loads nothing from elsewhere.
"""
