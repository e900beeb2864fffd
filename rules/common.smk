# What all rules share: the validated configuration, its graph, and where things are.

import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The project's folder, also where `--directory` names another one or a workflow takes this one as a module.
HOME = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).resolve().parent
sys.path.insert(0, str(HOME / "workflow" / "scripts"))

from swift_study.config import MAIN, Graph, chosen, gather, load
from swift_study.config.families import PATH
from swift_study.config.graph import FORMATS, TABLES
from swift_study.config.grid import FACTORS
from swift_study.errors import UserError
from swift_study.io.processes import become_starter, enter
from swift_study.io.settings import argument, deciding, limits, settings
from swift_study.numerics import GRADIENTS, TRAINING
from swift_study.studies import costs, manifest

# Jobs end with this Snakemake, also where it is killed; a lock that a killed one has left is removed.
become_starter()
enter(Path(".snakemake"), first=workflow.is_main_process)

# Rules call `python` and `torchrun`: those beside this snakemake, whether its environment is activated or not.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)

try:
    GATHERED = gather(config, HOME / "studies")
    CONFIG = load(GATHERED.values)
    # The studies that plain `snakemake` makes; the report's pages are about these.
    STUDIES = list(chosen(CONFIG.default, GATHERED, CONFIG.studies))
except UserError as error:
    raise WorkflowError(str(error))

if CONFIG.network == "submit_host":
    # Jobs ask no server, so they get no key: this sbatch takes the keys out of what Slurm stores of a job.
    os.environ.update(
        PATH=os.pathsep.join([f"{HOME}/workflow/bin", *os.get_exec_path()]),
        SWIFT_STUDY_KEYS=" ".join(CONFIG.key_names()),
    )

GRAPH = Graph(CONFIG)
FILES = GRAPH.files


pathvars:
    results=CONFIG.results,
    logs=f"{CONFIG.results}/logs",
    benchmarks=f"{CONFIG.results}/benchmarks",


wildcard_constraints:
    run=PATH,  # of a point of a run family
    model="|".join([MAIN, *CONFIG.models]),
    study="|".join(CONFIG.studies) or "-",
    strategy="|".join(CONFIG.strategies) or "-",
    loaded="|".join(GRAPH.loaded()) or "-",
    selected="|".join(GRAPH.made_by) or "-",
    design="|".join(CONFIG.designs) or "-",
    dataset=r"[^/]+",
    parent=r"[^/]+",
    evaluation=f"(?:{'|'.join(CONFIG.evaluations)}){FACTORS}",
    scorer="|".join(CONFIG.scorer_names()),


def shipped(path):
    """What comes with the project, by its place in it where snakemake runs in the project's folder."""
    return path if HOME == Path.cwd() else f"{HOME}/{path}"


def found(path):
    """A file of this name in the folder in which snakemake runs, or else the project's."""
    return path if Path(path).exists() else shipped(path)


SCRIPTS = shlex.quote(shipped("workflow/scripts"))


def at_submit_host(uses_network):
    """Whether to run where snakemake was started instead of in a cluster job, since only there may be a network."""
    return bool(uses_network) and CONFIG.network == "submit_host"


def as_it_is(value):
    """A value for a rule's parameter: Snakemake looks for wildcards in the braces of a plain string, and not in a function's."""
    return lambda wildcards: value


def option(name, value):
    """An option of a command line with its value; empty without a value."""
    return f"{name} {shlex.quote(str(value))}" if value else ""


def ends_of(name):
    """What a study, or the studies of a collection, end in."""
    if name in GATHERED.lacking:
        raise WorkflowError(
            f"The collection {name} has no values at the scale {CONFIG.scale}. Add them under `at` in studies/{name}.yaml."
        )
    studies = [name] if name in CONFIG.studies else GATHERED.studies[name]
    return [path for study in studies for path in GRAPH.ends(study)]
