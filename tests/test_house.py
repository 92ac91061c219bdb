"""The house of the design: who may import whom, what stays out of a light import, and the surface that is promised."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
from conftest import CONV3X3, REPOSITORY

import stemlab

ROOTS = {"stemlab": REPOSITORY / "stemlab", "stemlab_cli": REPOSITORY / "cli"}
FILES = {
    ".".join((name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
    for name, root in ROOTS.items()
    for path in sorted(root.rglob("*.py"))
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str, builders: bool = True) -> frozenset[str]:
    """Every module that a module imports anywhere in it, whole names, but not for type checking only.

    Without `builders`, not what a layer imports when its module is built: `build` and `init` of stemlab.spec.layers.
    """
    found = set()
    is_package = FILES[module].name == "__init__.py"
    skipped = () if builders or not below(module, "stemlab.spec.layers", "stemlab.plugins.t2t") else ("build", "init")
    for node in _executed(tree(module), skipped):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join((*kept, *([base] if base else [])))
            # `from . import costing` imports a module where there is one of that name.
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in FILES else base for a in node.names}
    return frozenset(found)


def _executed(node: ast.AST, skipped: tuple[str, ...]):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _executed(other, skipped)
        elif not (isinstance(child, ast.FunctionDef) and child.name in skipped):
            yield child
            yield from _executed(child, skipped)


def below(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def offences(inside: tuple[str, ...], never: tuple[str, ...], builders: bool = True) -> list[str]:
    modules = [m for m in FILES if below(m, *(f"stemlab.{name}" if name else "stemlab" for name in inside))]
    assert modules
    return [f"{m} imports {other}" for m in modules for other in imports(m, builders) if below(other, *never)]


def test_the_reader_of_imports_sees_them():
    assert "stemlab.costing" in imports("stemlab.matching")
    assert "stemlab.errors" in imports("stemlab.spec.base")
    assert "torch" in imports("stemlab.builders.stem")
    assert "timm.layers" in imports("stemlab.spec.layers.conv")
    assert "timm.layers" not in imports("stemlab.spec.layers.conv", builders=False)
    assert "nni.algorithms.hpo.random_tuner" in imports("stemlab.engine.tuners")
    assert "stemlab.engine.proposer" in imports("stemlab.running")  # inside a function
    assert "stemlab.builders" not in imports("stemlab.matching")


def test_specs_stand_on_errors_alone():
    specs = [m for m in FILES if below(m, "stemlab.spec")]
    own = [f"{m} imports {o}" for m in specs for o in imports(m, builders=False) if below(o, "stemlab")]
    assert own
    assert [
        line for line in own if not below(line.split()[-1], "stemlab.spec", "stemlab.errors", "stemlab.published")
    ] == []


def test_what_stands_at_the_bottom_knows_nothing_of_the_rest():
    for module in ("stemlab.errors", "stemlab.quantities"):
        assert not any(below(other, "stemlab") for other in imports(module))
    assert offences(("modules",), tuple(f"stemlab.{name}" for layer in LAYERS[1:] for name in layer)) == []


LIGHT = (
    "spec", "space", "costing", "body_costing", "matching", "candidate", "records", "zoo", "drawing", "analysis",
    "errors", "quantities", "plugins.t2t", "design", "fractional", "plan",
)  # fmt: skip
HEAVY = ("torch", "torchvision", "timm", "einops", "nni", "optuna", "sklearn", "safetensors")
LAYERS = [
    ("errors", "modules", "published", "quantities"),
    ("spec",),
    ("space", "costing", "body_costing", "matching", "zoo", "records", "candidate", "drawing", "plugins"),
    ("builders", "data", "analysis", "design", "fractional", "importance", "plan"),
    ("probes",),
    ("train", "report"),
    ("engine",),
    ("api", "running", "single", "status", "study", "timm_models"),
]


def test_what_describes_never_imports_what_computes():
    assert offences(LIGHT, HEAVY, builders=False) == []


def test_analysis_draws_nothing():
    assert offences(("analysis",), ("matplotlib", "jinja2", "stemlab.report")) == []


def test_only_the_engine_knows_nni_optuna_and_ray():
    others = tuple({m.split(".")[1] for m in FILES if m.startswith("stemlab.")} - {"engine"})
    assert offences(others, ("nni", "optuna", "ray")) == []


def test_imports_point_down():
    for height, layer in enumerate(LAYERS):
        above = tuple(f"stemlab.{name}" for higher in LAYERS[height + 1 :] for name in higher)
        assert offences(layer, (*above, "stemlab_cli")) == [], layer


def test_every_module_has_its_place():
    placed = {name for layer in LAYERS for name in layer}
    assert {m.split(".")[1] for m in FILES if m.startswith("stemlab.")} <= placed


def test_training_and_the_library_do_not_look_up():
    assert offences(("train",), ("stemlab.engine", "stemlab.api", "nni")) == []
    assert offences(("",), ("stemlab_cli", "cli", "typer", "rich")) == []


def test_the_command_line_computes_nothing():
    found = [f"{m} imports {o}" for m in FILES if below(m, "stemlab_cli") for o in imports(m)]
    assert [line for line in found if below(line.split()[-1], *HEAVY, "numpy", "pandas", "yaml")] == []


# What stays light.


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh Python; return the heavy packages it has imported by then."""
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stderr.splitlines()[-1]))


def test_the_check_of_loaded_modules_sees_torch():
    assert "torch" in loaded_by("import torch")


def test_importing_stemlab_imports_next_to_nothing():
    code = "import sys; before = set(sys.modules); import stemlab; assert not {'pydantic', 'yaml'} & set(sys.modules)"
    assert loaded_by(code) == set()


def test_costs_need_no_torch():
    calls = (
        "cost('vit_c_4gf')",
        "zoo.names()",
        "load('vit_p_1gf')",
        "match('vit_c_1gf')",
        "diagram('vit_c_1gf')",
        "SearchSpec",
    )
    assert loaded_by("import stemlab" + "".join(f"; stemlab.{call}" for call in calls)) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["cost", "vit_c_4gf"],
        ["cost", "vit_c_4gf", "--json"],
        ["zoo"],
        ["zoo", "vit_c_4gf"],
        ["schema", "model"],
        ["schema", "search"],
        ["search", str(CONV3X3), "--dry-run", "--json"],
    ],
    ids=" ".join,
)
def test_light_commands_need_no_torch(arguments):
    run = f"try: app({arguments!r})\nexcept SystemExit as end: assert not end.code, end.code"
    assert loaded_by(f"from stemlab_cli.main import app\n{run}") == set()


# The surface.


@pytest.mark.parametrize("name", stemlab.__all__)
def test_public_names_resolve(name):
    assert getattr(stemlab, name) is not None
    assert name in dir(stemlab)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'serch'"):
        _ = stemlab.serch


COMMANDS = {
    "ablate": {"file", "--out", "--engine", "--set", "--dry-run", "--resume", "--add-seeds", "--fresh", "--json"},
    "build": {"spec", "--body", "--out", "--export", "--seed", "--diagram", "--json"},
    "cost": {
        "specs",
        "--body",
        "--diagram",
        "--measure",
        "--batch",
        "--device",
        "--precision",
        "--threads",
        "--seconds",
        "--json",
    },
    "doctor": {"--machine", "--python", "--key", "--json"},
    "report": {"folder"},
    "schema": {"kind"},
    "search": {"file", "--out", "--trials", "--engine", "--set", "--dry-run", "--resume", "--json"},
    "status": {"folder", "--json"},
    "train": {
        "spec",
        "--data",
        "--recipe",
        "--set",
        "--seed",
        "--out",
        "--device",
        "--processes",
        "--every",
        "--resume",
        "--json",
    },
    "watch": {"folder", "--every"},
    "zoo": {"name", "--family", "--stride", "--max-params", "--markdown", "--json"},
}


def test_the_commands_and_their_flags_are_these():
    from stemlab_cli.main import app

    commands = typer.main.get_command(app).commands
    found = {
        name: {o for p in command.params for o in ([p.name] if p.param_type_name == "argument" else p.opts)}
        for name, command in commands.items()
    }
    assert found == COMMANDS


def _public(node: ast.AST, name: str):
    """Yield what a reader meets: the module, its public classes with their methods, its public functions."""
    yield name, node
    for child in ast.iter_child_nodes(node):
        is_class = isinstance(child, ast.ClassDef)
        if (is_class or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))) and not child.name.startswith("_"):
            if is_class:
                yield from _public(child, f"{name}.{child.name}")
            else:
                yield f"{name}.{child.name}", child


@pytest.mark.parametrize("module", FILES)
def test_everything_public_says_what_it_is(module):
    assert [name for name, node in _public(tree(module), module) if not ast.get_docstring(node)] == []


def test_files_stay_short():
    """A file of more than 500 lines holds more than one concept."""
    lengths = {str(p.relative_to(REPOSITORY)): len(p.read_text().splitlines()) for p in FILES.values()}
    assert {path: length for path, length in lengths.items() if length > 500} == {}


def test_the_layout_is_where_the_package_says():
    assert Path(stemlab.__file__).parent == ROOTS["stemlab"]
