"""A page on which people try an encoder: are two recordings one speaker, and who is speaking."""
