"""The mutation operators. Each takes one node of a syntax tree and yields (label, replacement) for every change of it.

A replacement is a node, or a list of statements in place of a statement. Names of local variables play no part.
"""
import ast

OPPOSITES = (  # one for the other, both ways
    (ast.Add, "+", ast.Sub, "-"), (ast.Mult, "*", ast.Div, "/"), (ast.LShift, "<<", ast.RShift, ">>"),
    (ast.Lt, "<", ast.LtE, "<="), (ast.Gt, ">", ast.GtE, ">="), (ast.Eq, "==", ast.NotEq, "!="),
    (ast.Is, "is", ast.IsNot, "is not"), (ast.And, "and", ast.Or, "or"),
)  # fmt: skip
SWAPS = {one: (symbol, other) for one, symbol, other, _ in OPPOSITES}
SWAPS |= {one: (symbol, other) for other, _, one, symbol in OPPOSITES}
SWAPS |= {ast.FloorDiv: ("//", ast.Mult), ast.BitXor: ("^", ast.BitOr), ast.BitAnd: ("&", ast.BitOr)}
# f(x, ...) -> x is still a number or an array of the same kind
DROPPED = set(
    "sqrt exp log log1p expm1 abs fabs square cos sin tanh cumprod cumsum mean sum rint round floor clip "
    "maximum minimum min max flip sorted".split()
)
# clip(x, -c, c) = clip(-c, x, c)
COMMUTES = set("maximum minimum min max fma add multiply hypot array_equal isclose clip".split())


def name_of(node):
    """The last part of a dotted name, or "" for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def arithmetic(node):
    """Binary, unary, boolean and augmented operators, and comparisons."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        symbol, other = SWAPS[type(node.op)]
        yield f"swap {symbol}", ast.BinOp(node.left, other(), node.right)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Pow, ast.Mod)):
        yield "drop **" if isinstance(node.op, ast.Pow) else "drop %", node.left
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield "drop -" if isinstance(node.op, ast.USub) else "drop not", node.operand
    elif isinstance(node, ast.BoolOp):
        symbol, other = SWAPS[type(node.op)]
        yield f"swap {symbol}", ast.BoolOp(other(), node.values)
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                symbol, other = SWAPS[type(op)]
                ops = [*node.ops[:i], other(), *node.ops[i + 1:]]
                yield f"swap {symbol}", ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.AugAssign):
        yield "overwrite", ast.Assign([node.target], node.value)


def calls(node):
    """f(x) -> x; f(x, y) -> f(y, x); where(c, a, b) -> a or b; fma(a, b, c) -> a b or a b - c."""
    if not isinstance(node, ast.Call) or any(isinstance(a, ast.Starred) for a in node.args):
        return
    name, args = name_of(node.func), node.args
    if name in DROPPED and args:
        yield f"drop {name}", args[0]
    elif name in DROPPED and isinstance(node.func, ast.Attribute):  # x.sum()
        yield f"drop {name}", node.func.value
    if name == "where" and len(args) == 3:
        yield "first of where", args[1]
        yield "second of where", args[2]
    if name == "fma" and len(args) == 3:
        yield "fma without its sum", ast.BinOp(args[0], ast.Mult(), args[1])
        yield "fma with -c", ast.Call(node.func, [*args[:2], ast.UnaryOp(ast.USub(), args[2])], [])
    if len(args) >= 2 and name not in COMMUTES:
        yield f"swap arguments of {name or 'a call'}", ast.Call(node.func, [args[1], args[0], *args[2:]], node.keywords)


def values(node):
    """Constants, dtypes, and the two ways through an if expression."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        v = node.value
        yield f"change {v}", ast.Constant(v + 1 if isinstance(v, int) else 2 * v or 1.0)
    elif isinstance(node, ast.Attribute) and node.attr == "float64":
        yield "float32", ast.Attribute(node.value, "float32", ast.Load())
    elif isinstance(node, ast.IfExp):
        yield "never if", node.orelse
        yield "always if", node.body


def statements(node):
    """Guards, branches, single statements and returned values."""
    if isinstance(node, ast.If):
        if isinstance(node.body[-1], ast.Raise):
            yield "drop guard", node.orelse or ast.Pass()
        else:
            yield "never if", node.orelse or ast.Pass()
            yield "always if", node.body
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "delete statement", ast.Pass()
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) > 1:
        first, second, *rest = node.value.elts
        yield "swap returned", ast.Return(ast.Tuple([second, first, *rest], ast.Load()))
        yield "return the first twice", ast.Return(ast.Tuple([first, first, *rest], ast.Load()))
    elif isinstance(node, ast.Return) and isinstance(node.value, (ast.BinOp, ast.Call)):
        yield "negate returned", ast.Return(ast.UnaryOp(ast.USub(), node.value))


def uses(node, alike):
    """One use of a parameter replaced by the next parameter of the same kind. alike: {name: the next one}."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in alike:
        yield f"name {node.id} -> {alike[node.id]}", ast.Name(alike[node.id], ast.Load())


def chosen(node, operator):
    """The operators of the list by hand that name what they change: "constant 0.5 -> 1.0", "call mean -> sum",
    "name t -> s" and "delete f", for an assignment or a statement that is a call of f."""
    kind, _, pair = operator.partition(" ")
    old, _, new = pair.partition(" -> ")
    if kind == "constant" and isinstance(node, ast.Constant) and repr(node.value) == repr(ast.literal_eval(old)):
        yield operator, ast.Constant(ast.literal_eval(new))
    elif kind == "call" and isinstance(node, ast.Call) and name_of(node.func) == old:
        method = isinstance(node.func, ast.Attribute)
        func = ast.Attribute(node.func.value, new, ast.Load()) if method else ast.Name(new, ast.Load())
        yield operator, ast.Call(func, node.args, node.keywords)
    elif kind == "name" and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id == old:
        yield operator, ast.Name(new, ast.Load())
    elif kind == "delete" and isinstance(node, (ast.Assign, ast.Expr)):
        if isinstance(node.value, ast.Call) and name_of(node.value.func) == old:
            yield operator, ast.Pass()


def variants(node, alike, operator=None):
    """Every (label, replacement) of the node, in a fixed order; with `operator`, only those that it names."""
    generated = [*arithmetic(node), *calls(node), *values(node), *statements(node), *uses(node, alike)]
    if operator is None:
        return generated
    return [(label, new) for label, new in generated if label == operator] or list(chosen(node, operator))
