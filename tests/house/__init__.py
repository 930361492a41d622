"""The rules that every file keeps: imports, docstrings, sizes, packaging. Files are found by walking the folders."""
import ast

from tests import ROOT


def python_files(*folders):
    """{path from the root: source} of every Python file in these folders."""
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
            for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in path.parts}


def imports(source):
    """Every module that the source imports, anywhere in it; `from a import b` is a.b, since b may be a module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return found
