"""The online service: what comes in over HTTP, who may ask, what is answered, and what is remembered."""
