"""Mutation tests: `operators` changes one node of a syntax tree, `sites` finds the nodes of a function, `historical` lists known bugs."""
