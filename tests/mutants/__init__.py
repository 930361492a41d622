"""Mutation tests: `operators` change a node of a syntax tree, `sites` finds the nodes, `historical` has known bugs."""
