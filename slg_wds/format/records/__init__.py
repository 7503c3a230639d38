"""One image's labels <-> the bytes of one record. Imports errors and the format's own frames alone."""
