"""Where an operator applies: the sites of a function, found in its syntax tree, and the source with one changed.

A site is (target, operator, n): the n-th place in the target, counted from 1, where the operator applies. A target is a
dotted name: `ref.samplers.heun` is one function or assignment, `ref.samplers` everything in the module.
"""
import ast
import collections
import itertools
import pathlib
import re

from tests.mutants.operators import variants

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("ref", "kernels")
LEFT_OUT = {"reading", "examples", "__main__", "__init__"}  # no mathematics


class Site(collections.namedtuple("Site", "target operator n")):
    def __str__(self):
        return f"{self.target}: {self.operator} ({self.n})"


def split(target):
    """The path of the module's file and the name inside it, "" for the whole module."""
    parts = target.split(".")
    for cut in (len(parts), len(parts) - 1):
        path = ROOT.joinpath(*parts[:cut]).with_suffix(".py")
        if path.is_file():
            return path, ".".join(parts[cut:])
    raise LookupError(f"{target}: no such module")


def definitions(tree, name=""):
    """{name: statement} of the functions and assignments at the top level, or of the one called `name`."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            leaves = [leaf for target in node.targets for leaf in ast.walk(target)]
            found |= {leaf.id: node for leaf in leaves if isinstance(leaf, ast.Name)}
    return {name: found[name]} if name in found else {} if name else found


def nodes(node):
    """The nodes below `node` in the order of the source, without docstrings, annotations, decorators and messages."""
    if isinstance(node, ast.FunctionDef):
        defaults = [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        children = [*defaults, *node.body[ast.get_docstring(node) is not None:]]
    else:
        children = [] if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Assert)) else ast.iter_child_nodes(node)
    for child in children:
        yield child
        yield from nodes(child)


def changes(statement, operator=None):
    """[(label, old node, replacement)] of one definition."""
    # parameters of one kind stand together in a docstring: "xt, eps_hat: (B, ...). t, s: ints"
    text = ast.get_docstring(statement) if isinstance(statement, ast.FunctionDef) else None
    groups = re.findall(r"((?:\w+, )+\w+): ", text or "")
    alike = dict(pair for group in groups for pair in itertools.pairwise(group.split(", ")))
    return [(label, node, new) for node in nodes(statement) for label, new in variants(node, alike, operator)]


def everything():
    """Every site of every function of the project, file by file."""
    for path in [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if LEFT_OUT.isdisjoint(parts):
            for name, statement in definitions(ast.parse(path.read_text("utf-8"))).items():
                labels = [label for label, _, _ in changes(statement)] if isinstance(statement, ast.FunctionDef) else []
                for i, label in enumerate(labels):
                    yield Site(".".join((*parts, name)), label, labels[: i + 1].count(label))


class Replace(ast.NodeTransformer):
    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else self.generic_visit(node)


def mutated(site):
    """The path of the site's file and its source with the change: only the definition that holds it is written anew.

    Raises LookupError where the target or the site does not exist, ValueError where nothing changes.
    """
    path, name = split(site.target)
    source = path.read_text("utf-8")
    found = list({id(node): node for node in definitions(ast.parse(source), name).values()}.values())
    places = [(statement, old, new) for statement in found for _, old, new in changes(statement, site.operator)]
    if not 0 < site.n <= len(places):
        raise LookupError(f"{site}: the operator applies at {len(places)} places")
    statement, old, new = places[site.n - 1]
    before = ast.unparse(statement)
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    last = statement.end_lineno
    after = ast.unparse(ast.fix_missing_locations(Replace(old, new).visit(statement)))
    if after == before:
        raise ValueError(f"{site}: nothing changes")
    lines = source.splitlines(keepends=True)
    source = "".join([*lines[:first - 1], after + "\n", *lines[last:]])
    compile(source, str(path), "exec")
    return path, source
