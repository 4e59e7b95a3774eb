"""The shape of the library: which package may import which, no circles, no torch where it is not needed, small files."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from paths import REPOSITORY

LIBRARY = REPOSITORY / "workflow/seqmill"
# What every module may import; among themselves they only have to be free of circles.
BASE = {
    "errors",
    "units",
    "files",
    "host_memory",
    "locks",
    "progress",
    "cli",
    "termination",
    "kinds",
    "option",
    "seqmill",
}
# The packages (and options and settings, which stand between them), and what each may import besides itself and BASE.
MAY_IMPORT = {
    "inputs": set(),
    "kernels": set(),
    "models": {"inputs", "kernels"},
    "outputs": {"inputs", "kernels"},
    "analysis": {"inputs", "kernels", "outputs"},
    "options": {"inputs", "outputs", "models"},
    "settings": {"options"},
    "planning": {"inputs", "models", "outputs", "options", "settings"},
    "engine": {"inputs", "kernels", "models", "outputs", "options", "settings"},
    "commands": {"inputs", "models", "outputs", "analysis", "options", "settings", "planning", "engine", "api"},
    "api": {"inputs", "models", "outputs", "analysis", "options", "settings", "engine"},
    "__main__": {"commands"},
}
# What the name seqmill itself offers in Python, only when it is first used.
OFFERED = {"api", "outputs", "errors"}
# Head nodes, sharding, checking and merging must not wait for torch.
WITHOUT_TORCH = [
    *("inputs", "outputs", "planning"),
    *("kernels.needs", "models.family", "models.registry", "models.hub", "models.source", "models.tokenizers"),
    *(f"models.{name}.{part}" for name in ("dnabert", "esm1", "esm2", "esmc", "t5") for part in ("config", "family")),
    *("models.dnabert.tokens", "models.esmc.layouts", "models.t5.tokens"),
    *("options", "settings", "cli", "engine.allocator", "commands", "api"),
    *(
        f"analysis.{name}"
        for name in ("vectors", "tables", "labels", "folds", "composition", "probe", "scores", "picture")
    ),
]


def modules() -> dict[str, Path]:
    """Module name without `seqmill.` to its file."""
    paths = LIBRARY.rglob("*.py")
    names = {path: ".".join(path.relative_to(LIBRARY).with_suffix("").parts) for path in paths}
    return {name.removesuffix(".__init__").replace("__init__", "seqmill"): path for path, name in names.items()}


def imports(path: Path) -> set[str]:
    """The modules of seqmill that a file imports, anywhere in it, for its types or by name in a string, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "seqmill":
            module = node.module.removeprefix("seqmill").removeprefix(".")
            for name in node.names:
                full = f"{module}.{name.name}".removeprefix(".")
                found.add(full if full in MODULES else module or "seqmill")
        elif isinstance(node, ast.Import):
            found |= {name.name.removeprefix("seqmill.") for name in node.names if name.name.startswith("seqmill.")}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("seqmill."):
            found |= {node.value.removeprefix("seqmill.")} & MODULES.keys()
    return found


MODULES = modules()


def package(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_place():
    assert {package(module) for module in MODULES} == BASE | MAY_IMPORT.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_arrows_point_one_way(module):
    own = package(module)
    allowed = BASE | {own} | (OFFERED if own == "seqmill" else MAY_IMPORT.get(own, set()))
    assert {package(other) for other in imports(MODULES[module])} <= allowed


def test_there_is_no_circle():
    # A circle of packages is one of modules, too, or shows in MAY_IMPORT.
    found = {name: imports(path) - {name} for name, path in MODULES.items()}
    # What `import seqmill` offers is imported when it is first used.
    found["seqmill"] = set()
    list(TopologicalSorter(found).static_order())
    list(TopologicalSorter(MAY_IMPORT).static_order())


def test_torch_is_imported_only_where_it_computes():
    names = [name for name in MODULES if any(name == part or name.startswith(f"{part}.") for part in WITHOUT_TORCH)]
    assert len(names) > 25
    lines = [f"import seqmill.{name}" for name in names if name != "seqmill"]
    program = "import sys\n" + "\n".join(lines) + "\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(LIBRARY.parent)})


def test_the_name_alone_imports_nothing_else():
    program = "import sys; before = set(sys.modules); import seqmill; found = set(sys.modules) - before\n"
    program += (
        "assert {name.split('.')[0] for name in found} <= {'seqmill', 'typing'} | sys.stdlib_module_names, found\n"
    )
    program += "assert [name for name in found if name.startswith('seqmill')] == ['seqmill'], found\n"
    program += "assert seqmill.open and not {'torch', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(LIBRARY.parent)})


def test_an_embed_job_waits_for_no_library_that_it_does_not_need():
    """Every job starts anew, and these take a second."""
    program = "import sys, seqmill.engine.job, seqmill.models.hub\nfor name in ('pandas', 'pyarrow', 'jsonschema', "
    program += "'transformers', 'huggingface_hub'):\n    assert name not in sys.modules, name"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(LIBRARY.parent)})


def test_contributing_has_a_line_for_every_module():
    """The tree is what a newcomer finds a file by."""
    tree = (REPOSITORY / "CONTRIBUTING.md").read_text().split("```")[1]
    lines = re.findall(r"^( +)(\S+?)/? {2,}(.*)$", tree, re.MULTILINE)
    found, folder = set(), ""
    for indent, name, what in lines:
        folder = folder if len(indent) > 2 else f"{name}." if not name.endswith(".py") else ""
        # A family is a line, with its files on it.
        files = re.findall(r"\w+\.py", what) if not name.endswith(".py") and len(indent) == 4 else [name]
        prefix = f"{folder}{name}." if files != [name] else folder if len(indent) > 2 else ""
        found |= {f"{prefix}{file.removesuffix('.py')}" for file in files if file.endswith(".py")}
    more = re.findall(r"^ {20,}.*?(\w+)\.py", tree, re.MULTILINE)
    packages = {name for name in MODULES if MODULES[name].name == "__init__.py"}
    assert {name for name in MODULES.keys() - packages if name.split(".")[-1] not in more} <= found
    assert found <= MODULES.keys()


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_files_are_small():
    library = [path for folder in ("seqmill", "scripts") for path in (REPOSITORY / "workflow" / folder).rglob("*.py")]
    assert {str(path): lines for path in library if (lines := lines_of(path)) > 300} == {}
    tests = (REPOSITORY / "tests").rglob("*.py")
    assert {str(path): lines for path in tests if (lines := lines_of(path)) > 400} == {}


def test_a_job_is_the_order_of_its_steps_and_no_more():
    tree = ast.parse((LIBRARY / "engine/job.py").read_text())
    (job,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert job.end_lineno - job.lineno < 200


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_attributes_are_born_in_init(path):
    """Who reads a class sees all of its state in one place."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            born = {name for method in methods if method.name == "__init__" for name in assigned(method)}
            fields = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
            later = {name for method in methods for name in assigned(method)} - born - fields
            assert not later, f"{node.name}: {later}"


def assigned(method: ast.FunctionDef) -> set[str]:
    """The attributes of self that a method assigns."""
    targets = [node for node in ast.walk(method) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    return {node.attr for node in targets if isinstance(node.value, ast.Name) and node.value.id == "self"}
