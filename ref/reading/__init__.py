"""The reader of `ref`, behind `python -m ref`: what is there and in which order, worked examples, the trace, the page.
No math of its own."""
