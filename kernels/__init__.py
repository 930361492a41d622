"""Fast kernels under the names of `ref`, one folder a backend, and what checks them. Importing compiles nothing."""
import importlib.util
import sys
from pathlib import Path


def expect(name, part):
    """Raise ImportError, in words, where a file or a folder of the user's own hides a package of this project.

    name: of the package. part: a file in it. For `python -m kernels` it is a line on stderr and the exit status 2.
    """
    found = importlib.util.find_spec(name)
    places = [*(found.submodule_search_locations or ())] if found else []
    if found is None or any((Path(place) / part).exists() for place in places):
        return
    own = found.origin or places[0]
    reason = f"{own} hides the package {name} of this project: rename it, or start Python in another folder"
    if sys.argv[:1] == ["-m"]:  # so it is while the module of the command is looked up
        print(f"python -m {__name__}: {reason}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(reason)


expect("ref", "philox.py")
