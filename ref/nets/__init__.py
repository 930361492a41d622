"""Networks as plain functions over a dict of arrays: init, forward, backward."""
